"""One run: data -> encoder -> training -> test -> Jacobians -> JNE -> record.

python train.py                                           # the synthetic cohort, a minute
python train.py encoder=linear subject=s2
python train.py experiment=v4 data.root=/path/to/v4_201025
python train.py -m encoder=linear,nonlinear activation=relu,gelu placement=loc1,loc2,both
"""

import hydra
from omegaconf import DictConfig

from jne.cli import run_script
from jne.machine import quick_imports


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def train(composed: DictConfig) -> float:
    # Imported here: --help and a misspelt override answer before torch is loaded.
    with quick_imports():
        import pytorch_lightning as pl
        from pytorch_lightning.callbacks import EarlyStopping
        from pytorch_lightning.plugins.environments import LightningEnvironment

        from jne import training_run as run
        from jne.callbacks import (
            BestWeights,
            EpochRecord,
            JacobianNonlinearity,
            LastCheckpoint,
            TestScores,
        )
        from jne.config import check_train
        from jne.data.module import EncodingData
        from jne.data.prepared import prepare
        from jne.machine import keep_freed_memory, use_given_cores
        from jne.record import check
        from jne.training import EncodingModule

    config, source = check(check_train, composed)
    folder = run.folder_of(config)
    done = run.result_of(folder)
    if done is not None:
        return done
    use_given_cores()
    with run.record(config, folder) as record:
        prepared = prepare(source, config.output / "prepared")
        data = EncodingData(
            prepared,
            batch_size=config.trainer.batch_size,
            seed=config.seed,
            shuffle=config.shuffle,
        )
        record.describe(data)
        if data.batch_bytes > 2**26:
            keep_freed_memory()
        pl.seed_everything(config.seed, verbose=False)
        model = EncodingModule(
            data.features.shape[1], len(data.kept), config.encoder, config.optimizer
        )
        last = folder / "last.ckpt"
        epochs = EpochRecord(record.tracked.log_epoch)
        best = BestWeights()
        scores = TestScores(config.stats, config.seed)
        nonlinearity = JacobianNonlinearity(config.jacobian, scores, config.stats.alpha, folder)
        trainer = pl.Trainer(
            max_epochs=config.trainer.max_epochs,
            accelerator=config.trainer.accelerator,
            precision=config.trainer.precision,
            accumulate_grad_batches=data.n_parts,
            callbacks=[
                epochs,
                best,
                EarlyStopping("val/loss", patience=config.trainer.patience),
                LastCheckpoint(last, config.trainer.checkpoint_seconds, record.tracked.flush),
                scores,
                nonlinearity,
            ],
            plugins=[LightningEnvironment()],  # one process, also where SLURM starts it
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        checkpoint = last if last.exists() else config.checkpoint
        saved = run.checked_checkpoint(checkpoint, model) if checkpoint else {}
        if not run.restore(saved, model, epochs, best, config.trainer.max_epochs):
            trainer.fit(model, data, ckpt_path=checkpoint)
        trainer.test(model, data, verbose=False)
        return record.finish(data, model, epochs, best, scores, nonlinearity)


if __name__ == "__main__":
    run_script(train)
