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
from jne.runs.overrides import grid


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
                  {"control": {"kind": "shuffle"}}):  # fmt: skip
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


@pytest.mark.runs
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
