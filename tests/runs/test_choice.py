"""The choice of training settings by their validation loss, and the experiment file of a choice."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, compose_train
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from jne.errors import InputError
from jne.runs.choice import Candidate, choose, ranked, settings_of
from jne.runs.experiment import Command, experiment_names, write_experiment
from jne.runs.halving import Halving
from jne.runs.overrides import grid
from jne.runs.sweep import _pointer_file
from jne.utils.files import write_json


def config_of(*, subject="subj01", placement="both", activation="relu", seed=0, lr=1e-3, width=8,
              **other):  # fmt: skip
    """The config of a run, as plain values."""
    label = "linear" if placement == "none" else f"nonlinear_{activation}_{placement}"
    return {
        "name": f"{subject}_{label}_s{seed}",
        "subject": subject,
        "seed": seed,
        "activation": activation,
        "placement": "both",
        "data": {"name": "made", "n_train": 10},
        "encoder": {"_target_": "E", "label": label, "hidden_width": width,
                    "activation": activation, "placement": placement},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": lr},
        "trainer": {"max_epochs": 9, "checkpoint_seconds": 5},
        "jacobian": {"device": "cpu"},
        **other,
    }  # fmt: skip


def candidate(loss: float, name: str = "run", **settings) -> Candidate:
    config = config_of(**settings)
    label = f"{config['subject']} {config['encoder']['label']}"
    return Candidate(Path(name), settings_of(config), loss, label, ())


def test_the_choice_is_the_lowest_mean_validation_loss():
    """Against brute force, over subjects, encoders, two varied keys and seeds."""
    rng = np.random.default_rng(0)
    subjects, placements, lrs, widths, seeds = ["a", "b"], ["both", "none"], [1, 2, 3], [4, 8], 3
    losses = rng.random((2, 2, 3, 2, seeds))
    runs = [
        candidate(float(losses[s, p, k, w, seed]), f"{s}{p}{k}{w}{seed}", subject=subjects[s],
                  placement=placements[p], lr=lrs[k], width=widths[w], seed=seed)
        for s, p, k, w, seed in itertools.product(*map(range, losses.shape))
    ]  # fmt: skip
    choices = choose([runs[k] for k in rng.permutation(len(runs))])
    assert [choice.label for choice in choices] == [
        "a linear", "a nonlinear_relu_both", "b linear", "b nonlinear_relu_both",
    ]  # fmt: skip
    for choice, (s, p) in zip(choices, [(0, 1), (0, 0), (1, 1), (1, 0)], strict=True):
        means = losses[s, p].mean(axis=-1)
        k, w = np.unravel_index(means.argmin(), means.shape)
        assert choice.setting == {"optimizer.lr": lrs[k], "encoder.hidden_width": widths[w]}
        assert choice.loss == pytest.approx(means.min(), abs=1e-12)
        assert choice.n_settings == 6
        assert [run.path.name for run in choice.runs] == [f"{s}{p}{k}{w}{n}" for n in range(seeds)]


def test_what_is_compared_and_what_is_chosen():
    base = settings_of(config_of())
    for other in ({"lr": 2.0}, {"width": 9}, {"trainer": {"max_epochs": 10}}):
        changed = settings_of(config_of(**other))
        assert changed.group == base.group, other
        assert changed.setting != base.setting, other
    for other in ({"subject": "x"}, {"placement": "loc1"}, {"activation": "gelu"},
                  {"data": {"name": "made", "n_train": 11}},
                  {"control": {"kind": "twins"}}):  # fmt: skip
        assert settings_of(config_of(**other)).group != base.group, other
    for other in ({"seed": 1}, {"jacobian": {"device": "cuda"}}, {"output": "x"}):
        changed = settings_of(config_of(**other))
        assert (changed.group, changed.setting) == (base.group, base.setting), other


def test_a_linear_encoder_is_the_same_whatever_the_activation():
    """A sweep over activations repeats it; the repetition counts once."""
    runs = [
        candidate(loss, f"{activation}{lr}", placement="none", activation=activation, lr=lr)
        for activation in ("relu", "gelu")
        for lr, loss in ((1, 0.5), (2, 0.25))
    ]
    (choice,) = choose(runs)
    assert choice.setting == {"optimizer.lr": 2}
    assert [run.path.name for run in choice.runs] == ["relu2"]


def test_a_setting_that_lacks_a_seed_is_not_chosen():
    runs = [candidate(0.5, lr=1, seed=seed) for seed in (0, 1)]
    (settings,) = ranked([*runs, candidate(0.1, lr=2)]).values()
    assert settings == [runs]


def test_nothing_is_chosen_where_no_setting_was_varied():
    assert choose([candidate(0.1), candidate(0.2, subject="x"), candidate(0.3, seed=1)]) == []


def test_encoders_of_one_name_are_told_apart():
    runs = [
        candidate(lr, lr=lr, data={"name": "made", "n_train": n}) for n in (10, 20) for lr in (1, 2)
    ]
    choices = choose(runs)
    assert [choice.label for choice in choices] == [
        "subj01 nonlinear_relu_both data.n_train=10",
        "subj01 nonlinear_relu_both data.n_train=20",
    ]
    assert len(set(experiment_names(choices))) == 2


def test_names_of_experiments_need_no_quotes():
    choices = choose([candidate(lr, subject=s, lr=lr) for s in ("ä/ b$", "ä. b$") for lr in (1, 2)])
    names = experiment_names(choices)
    assert len(set(names)) == 2
    assert all(name.isascii() and name.isidentifier() for name in names)


@pytest.mark.parametrize(
    "overrides",
    [
        ["subject=s2", "encoder=linear", "optimizer=adamw", "optimizer.lr=1e-5"],
        ["experiment=paper", "optimizer.lr=0.003", "activation=gelu", "placement=loc1"],
        ["experiment=v4", "data.root=/a b/c", "+optimizer.eps=1e-9", "trainer.batch_size=null"],
        ["+optimizer.betas=[0.8,0.9]", "jacobian.voxels=[V1,'1e3']", "name='1e-3'"],
        ["~optimizer.fused", "encoder.hidden_width=7"],
    ],
)
def test_an_experiment_file_is_the_same_run(tmp_path, overrides):
    """The config that Hydra composes with it equals that of the job's overrides."""
    expected = OmegaConf.to_container(compose_train(tmp_path, "sweep=x", *overrides), resolve=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(ROOT) / "conf"), version_base="1.3"):
        groups = compose("train", return_hydra_config=True).hydra.runtime.choices
    job = [*overrides, "seed=3", "output=/elsewhere", "tracking.uri=x", "resume=true"]
    runs = [Candidate(tmp_path, settings_of(config_of()), 0.5, "subj01 x", tuple(job))]
    runs.append(candidate(0.6, lr=7))
    (choice,) = choose(runs)
    path = write_experiment(tmp_path, "best", choice, Command(tuple(groups)))
    assert path == tmp_path / "experiment" / "best.yaml"
    deleted = [override for override in overrides if override.startswith("~")]
    taken = compose_train(
        tmp_path, "sweep=x", f"hydra.searchpath=[{tmp_path}]", "experiment=best", *deleted
    )
    assert OmegaConf.to_container(taken, resolve=True) == expected
    assert all(override in path.read_text() for override in deleted)


# --- the grid ---


def test_a_grid_of_everything_that_hydra_lists():
    with initialize_config_dir(str(Path(ROOT) / "conf"), version_base="1.3"):
        jobs = grid(["subject=glob('s[12]')", "seed=range(0,2)", "optimizer.lr=choice(0.1,1e-2)"])
    expected = itertools.product(("s1", "s2"), (0, 1), ("0.1", "0.01"))
    assert jobs == [[f"subject={a}", f"seed={b}", f"optimizer.lr={c}"] for a, b, c in expected]


def test_an_interval_is_no_grid():
    with (
        initialize_config_dir(str(Path(ROOT) / "conf"), version_base="1.3"),
        pytest.raises(InputError, match=r"optimizer.lr=interval\(1,2\): a grid needs single"),
    ):
        grid(["seed=0,1", "optimizer.lr=interval(1,2)"])


# --- successive halving ---


class Trainer:
    """A launcher whose runs are nothing but their validation loss."""

    def __init__(self, folder: Path, loss):
        self.folder, self.loss = folder, loss
        self.rounds: list[list[dict[str, str]]] = []

    def launch(self, batch, initial_job_idx):
        self.rounds.append([dict(override.split("=", 1) for override in job) for job in batch])
        for number, job in enumerate(batch, initial_job_idx):
            settings = dict(override.split("=", 1) for override in job)
            run = self.folder / str(number)
            run.mkdir()
            loss = self.loss(settings)
            ended = {"status": "FAILED"} if loss is None else {"status": "FINISHED"}
            write_json(run / "status.json", ended | {"val_loss": loss})
            write_json(_pointer_file(self.folder, job), run.name)


def halving(folder: Path, loss, *arguments: str, epochs: int = 2, eta: int = 3) -> list:
    """The jobs of each round, with at most 18 epochs."""
    sweeper = Halving(epochs, eta)
    sweeper.config = OmegaConf.create(
        {
            "hydra": {"sweep": {"dir": str(folder), "subdir": "${hydra.job.num}"}},
            "tracking": {"experiment": "jne"},
        }
    )

    def composed(job):
        values = dict(override.split("=", 1) for override in job)
        return config_of(
            subject=values["subject"], lr=float(values["optimizer.lr"]), seed=int(values["seed"]),
            trainer={"max_epochs": int(values.get("trainer.max_epochs", 18))},
        )  # fmt: skip

    sweeper._composed = composed
    sweeper.launcher = Trainer(folder, loss)
    with initialize_config_dir(str(Path(ROOT) / "conf"), version_base="1.3"):
        sweeper.sweep(list(arguments))
    return sweeper.launcher.rounds


def test_each_round_keeps_the_best_third_of_each_subject(tmp_path):
    """Losses averaged over two seeds, of which one alone would mislead."""
    best = {"a": 3, "b": 17}

    def loss(settings):
        noise = 5 if settings["seed"] == "0" else -5
        distance = abs(int(settings["optimizer.lr"]) - best[settings["subject"]])
        return distance + noise * (int(settings["optimizer.lr"]) % 2) + 10

    lrs = f"optimizer.lr={','.join(map(str, range(20)))}"
    rounds = halving(tmp_path, loss, "subject=a,b", lrs, "seed=0,1")
    # 20 settings, ceil(20 / 3) = 7, ceil(7 / 3) = 3: at most eta, so these are trained in full
    assert [len(jobs) for jobs in rounds] == [80, 28, 12]
    assert [job["trainer.max_epochs"] for jobs in rounds[:2] for job in jobs[:1]] == ["2", "6"]
    for subject, lr in best.items():
        kept = {int(job["optimizer.lr"]) for job in rounds[2] if job["subject"] == subject}
        assert kept == {lr - 1, lr, lr + 1}
    assert all(set(job) == {"subject", "optimizer.lr", "seed"} for job in rounds[2])


def test_a_group_of_few_settings_has_no_trials_and_failed_ones_drop_out(tmp_path):
    rounds = halving(tmp_path, lambda job: float(job["optimizer.lr"]), "subject=a", "seed=0",
                     "optimizer.lr=1,2,3")  # fmt: skip
    assert [len(jobs) for jobs in rounds] == [3]
    (tmp_path / "failing").mkdir()
    rounds = halving(
        tmp_path / "failing", lambda job: None if job["optimizer.lr"] == "1" else 1.0,
        "subject=a", "seed=0", "optimizer.lr=1,2,3,4", eta=2,
    )  # fmt: skip
    assert [job["optimizer.lr"] for job in rounds[-1]] == ["2", "3"]


@pytest.mark.parametrize(
    ("settings", "arguments", "match"),
    [
        ({"eta": 1}, (), r"hydra.sweeper.eta=1"),
        ({"epochs": 0}, (), r"hydra.sweeper.epochs=0"),
        ({}, ("trainer.max_epochs=3,4",), "trainer.max_epochs: hydra/sweeper=halving"),
    ],
)
def test_halving_that_cannot_be(tmp_path, settings, arguments, match):
    with pytest.raises(InputError, match=match):
        halving(tmp_path, None, "subject=a", "seed=0", "optimizer.lr=1,2", *arguments, **settings)
