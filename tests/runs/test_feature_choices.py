"""features=[a,b] on the command line, in sweeps and in config files."""

import pytest
from helpers import ROOT, compose_train
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from jne.cli import user_message
from jne.errors import InputError
from jne.features import FeatureSpaces, OpenClip, Timm
from jne.runs.feature_choices import with_combinations
from jne.runs.overrides import grid
from jne.utils.instantiate import instantiate

BOTH = "features=clip_vit_b32+timm"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("features=[clip_vit_b32,timm]", BOTH),
        ("features=[ clip_vit_b32 , timm ]", BOTH),
        ("features=[timm],timm,[timm,timm]", "features=timm,timm,timm+timm"),
        ("features.layer=[3,6]", "features.layer=[3,6]"),
        ("voxels=[V1,V2]", "voxels=[V1,V2]"),
    ],
)
def test_a_list_is_one_choice(written, meant):
    assert with_combinations(written) == meant


def test_each_space_has_the_keys_of_its_file(tmp_path):
    changes = ("features.spaces.timm.model=resnet50", "features.spaces.clip_vit_b32.layer=[3,6]")
    composed = compose_train(tmp_path, BOTH, *changes)
    features = instantiate(OmegaConf.to_container(composed.features, resolve=True), "features")
    assert isinstance(features, FeatureSpaces)
    assert list(map(type, features.spaces.values())) == [OpenClip, Timm]
    assert features.name == "clip_vit_b32+resnet50"
    assert features.spaces["clip_vit_b32"].layer == [3, 6]
    assert features.spaces["timm"].cache == tmp_path / "features"
    assert "clip_vit_b32+resnet50" in composed.name


def test_a_choice_may_be_taken_twice(tmp_path):
    models = ("features.spaces.timm.model=resnet50", "features.spaces.timm_2.model=vgg11")
    composed = compose_train(tmp_path, "features=timm+timm", *models)
    assert composed.features.name == "resnet50+vgg11"


def test_several_spaces_can_be_swept_over():
    GlobalHydra.instance().clear()
    with initialize_config_dir(f"{ROOT}/conf", version_base="1.3"):
        jobs = grid([with_combinations("features=[clip_vit_b32,timm],timm"), "seed=0"])
    assert jobs == [[BOTH, "seed=0"], ["features=timm", "seed=0"]]


def test_a_wrong_name_is_named(tmp_path):
    with pytest.raises(Exception, match="tim") as raised:
        compose_train(tmp_path, "features=clip_vit_b32+tim")
    assert user_message(raised.value).startswith(
        "features=tim: there is no such choice; did you mean timm?"
    )


@pytest.mark.runs
def test_a_list_in_a_config_file_is_refused(run_script, tmp_path):
    """Hydra would mix the keys of both files without a word."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "two.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /features: [clip_vit_b32, clip_vit_l14]\n"
    )
    with pytest.raises(SystemExit, match=r"^error: features: in the defaults of a config file, na"):
        run_script("train.py", f"--config-dir={tmp_path}", "experiment=two")


def test_a_space_without_a_value_is_named(tmp_path):
    with pytest.raises(Exception, match="Missing mandatory") as raised:
        compose_train(tmp_path, BOTH).name  # noqa: B018
    assert user_message(raised.value) == str(
        InputError(
            "features.spaces.timm.model",
            "this key needs a value; write features.spaces.timm.model=...",
        )
    )
