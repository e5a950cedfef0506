"""Keys without an effect on these data are refused: the record of the run would name them."""

import pytest
from helpers import compose_train

from jne.errors import InputError
from jne.training.config import check_config

ARRAYS = ("data=arrays", "data.responses=y.npy")
CLIP = ("features=clip_vit_b32", "features.pretrained=random")
TIMM = ("features=timm", "features.model=resnet18")
STORED = ("features=precomputed", "features.path=x.npy")


def refused(tmp_path, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        check_config(compose_train(tmp_path, *overrides))
    return str(error.value)


@pytest.mark.runs
@pytest.mark.parametrize(("features", "name"), [(CLIP, "clip_vit_b32"), (TIMM, "resnet18"),
                                                (STORED, "precomputed")])  # fmt: skip
@pytest.mark.parametrize("data", [(), ("data=cells",), (*ARRAYS, "data.features=x.npy")])
def test_features_that_are_not_trained_on_are_refused(tmp_path, data, features, name):
    sentence = refused(tmp_path, *data, *features)
    assert sentence.startswith(f"features={name}: has no effect: the data ")
    assert "bring their own features; leave it out" in sentence


def test_a_layer_of_no_features_is_refused(tmp_path):
    assert refused(tmp_path, "features.layer=3").startswith("features.layer=3: has no effect: the")


@pytest.mark.runs
@pytest.mark.parametrize("key", ["layer=7", "first_layer=0", "features_key=x",
                                 "transpose_features=true"])  # fmt: skip
def test_keys_of_an_array_of_features_are_refused_beside_images(tmp_path, key):
    sentence = refused(tmp_path, *ARRAYS, "data.images=pictures", *CLIP, f"data.{key}")
    assert sentence.startswith(f"data.{key}: has no effect on")


@pytest.mark.runs
@pytest.mark.parametrize(
    "overrides",
    [
        (*ARRAYS, "data.images=pictures", *CLIP, "features.layer=3"),
        (*ARRAYS, "data.images=pictures", *STORED),
        (*ARRAYS, "data.features=x.npy", "data.layer=3", "encoder=linear", "activation=gelu"),
        ("data=nsd", "data.root=.", *CLIP),
        ("data=algonauts", "data.root=.", *STORED),
        ("data=mosaic", "data.root=.", "data.dataset=NOD", *TIMM),
        ("data=laion", "data.root=.", "features=laion_clip"),
        ("encoder=ridge", "activation=gelu", "placement=loc1"),  # as sweeps give them
    ],
)
def test_keys_with_an_effect_are_taken(tmp_path, overrides):
    check_config(compose_train(tmp_path, *overrides))


def test_a_source_of_ones_own_may_take_what_it_likes_of_the_features(tmp_path, monkeypatch):
    (tmp_path / "taking.py").write_text(
        "from jne.data.prepared import Source\n"
        "class Taking(Source):\n    where: str\n    def write(self, folder): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    target = ("data._target_=taking.Taking", "~data.seed", "~data.n_features", "~data.n_train",
              "~data.n_val", "~data.n_test", "~data.voxels_per_roi", "~data.n_repeats",
              "~data.noise_ceiling")  # fmt: skip
    sentence = refused(tmp_path, *target, *STORED, "+data.where=x.npy")
    assert sentence.startswith("features=precomputed: has no effect")
    check_config(compose_train(tmp_path, *target, *STORED, "+data.where=${features.path}"))


@pytest.mark.runs
def test_what_does_not_change_results_is_no_part_of_what_a_run_is(tmp_path):
    """Attempts at one run have the same identity."""

    def identity(*overrides):
        chosen = (*ARRAYS, "data.features=x.npy", "data.voxels=v.csv", *overrides)
        return check_config(compose_train(tmp_path, *chosen))[0].identity()

    for override in ("data.leaks=warn", "trainer.checkpoint_seconds=9", "tracking.uri=x"):
        assert identity(override) == identity(), override
    for override in ("data.noise_ceiling_unit=percent", "seed=9", "control=shuffle"):
        assert identity(override) != identity(), override
