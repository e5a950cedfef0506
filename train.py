"""One run: data -> encoder -> training -> test -> Jacobians -> JNE -> record.

python train.py                                           # the synthetic cohort, a minute
python train.py encoder=linear subject=s2
python train.py experiment=v4 data.root=/path/to/v4_201025
python train.py -m encoder=linear,nonlinear activation=relu,gelu placement=loc1,loc2,both
"""

from jne.utils.loading import say_loading

say_loading()  # before what takes long to import

from contextlib import nullcontext
from functools import partial

import hydra
from omegaconf import DictConfig

from jne.cli import never_exits, run_script
from jne.utils.machine import imports_without_gc


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@never_exits
def train(composed: DictConfig) -> float:
    # Imported here: --help and a misspelt override are answered before torch is loaded.
    with imports_without_gc():
        from jne.fitting.banded import fit_banded
        from jne.fitting.baseline import baseline_columns, linear_predictions
        from jne.measuring.autocorrelation import autocorrelated
        from jne.measuring.evidence import measure_evidence
        from jne.measuring.share import measure_share
        from jne.runs.session import check_or_discard_folder
        from jne.training.config import check_config
        from jne.training.halves import measure_halves
        from jne.training.run import finished_loss, folder_of, open_training_run
        from jne.training.shards import compute_shard
        from jne.training.steps import fit_and_measure, load_data
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
        if shards.loss is not None:  # another job must record the run
            return shards.loss
        folder = shards.folder

    with shards or nullcontext(), open_training_run(config, folder) as run:
        data = load_data(source, config)
        run.describe(data)
        if shards:
            shards.describe(run)
        baseline = baseline_columns(config.baseline, data, run.stages)
        banded = fit_banded(config.baseline, data, run.stages)
        share = measure_share(data, config.share, run.stages)
        if share is not None:
            run.warn(share.caveat)
        evidence = None
        if config.evidence is not None:
            linear = linear_predictions(data, run.stages)
            if source.in_order:
                run.warn(autocorrelated(data, linear[0]))
            evidence = partial(
                measure_evidence, linear=linear, settings=config.evidence, folder=folder
            )
        halves = measure_halves(data, config, run.stages, folder) if config.halves else None
        outcome = fit_and_measure(
            data,
            config,
            run.stages,
            folder,
            checkpoint=config.checkpoint,
            on_epoch=run.tracked.log_epoch,
            compute=shards.merge if shards else None,
            evidence=evidence,
        )
        return run.save(source, outcome, baseline, share, halves, banded)


if __name__ == "__main__":
    run_script(train)
