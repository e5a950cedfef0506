"""One run: data -> encoder -> training -> test -> Jacobians -> JNE -> record.

python train.py                                           # the synthetic cohort, a minute
python train.py encoder=linear subject=s2
python train.py experiment=v4 data.root=/path/to/v4_201025
python train.py -m encoder=linear,nonlinear activation=relu,gelu placement=loc1,loc2,both
"""

from contextlib import nullcontext

import hydra
from omegaconf import DictConfig

from jne.cli import never_exits, run_script
from jne.utils.machine import imports_without_gc


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@never_exits
def train(composed: DictConfig) -> float:
    # Imported here: --help and a misspelt override are answered before torch is loaded.
    with imports_without_gc():
        import pytorch_lightning as pl

        from jne.data.datamodule import EncodingData
        from jne.data.prepared import prepare
        from jne.runs.session import check_or_discard_folder
        from jne.training.baseline import baseline_columns
        from jne.training.config import check_config
        from jne.training.fit import fit, test
        from jne.training.measure import check_measurable, measure_nonlinearity, score_test
        from jne.training.module import EncodingModule
        from jne.training.planted import planted_columns
        from jne.training.run import finished_loss, folder_of, open_training_run
        from jne.training.shards import compute_shard
        from jne.training.trajectory import trajectory_of
        from jne.training.twins import make_twins
        from jne.utils.machine import use_allocated_cores

    config, source = check_or_discard_folder(check_config, composed)
    folder = folder_of(config, source)
    loss = finished_loss(folder)
    if loss is not None:
        return loss
    use_allocated_cores()
    shards = None
    if config.jacobian.shard is not None:
        shards = compute_shard(config, source)
        if shards.loss is not None:  # another shard records the run
            return shards.loss
        folder = shards.folder

    with shards or nullcontext(), open_training_run(config, folder) as run:
        prepared = prepare(source, config.prepared)
        data = EncodingData(
            prepared,
            batch_size=config.trainer.batch_size,
            seed=config.seed,
            shuffle=config.control.kind == "shuffle",
        )
        run.describe(data)

        baseline = baseline_columns(config.baseline, data)
        if config.control.kind == "twins":
            data.add_twins(make_twins(data, config.control, config.seed, folder / "twins.npy"))
        pl.seed_everything(config.seed, verbose=False)
        module = EncodingModule(data.n_features, data.n_outputs, config.encoder, config.optimizer)
        check_measurable(module.encoder, data, config.jacobian)
        if shards is not None:
            history = shards.trained(module, data, run)
        else:
            history = fit(
                module,
                data,
                config.trainer,
                readout=config.readout,
                save_to=folder / "last.ckpt",
                checkpoint=config.checkpoint,
                on_epoch=run.tracked.log_epoch,
                trajectory=trajectory_of(data, config.jacobian, config.seed, run.tracked.log_epoch),
            )

        def measure(predictions):
            # Lightning calls it, as a callback, once the test stimuli are predicted.
            scores = score_test(data, predictions, config.stats, config.seed)
            nonlinearity = measure_nonlinearity(
                module.encoder,
                data,
                scores,
                config.jacobian,
                config.stats.alpha,
                folder,
                shards.merge if shards else None,
            )
            return scores, nonlinearity

        scores, nonlinearity = test(module, data, config.trainer, measure)
        if config.control.planted:
            nonlinearity.columns.update(
                planted_columns(config, data, module.encoder, nonlinearity.measured(data), folder)
            )
        return run.save(source, data, module, history, baseline, scores, nonlinearity)


if __name__ == "__main__":
    run_script(train)
