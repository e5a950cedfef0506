"""The config of evaluate.py, checked before any run is opened."""

from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import AfterValidator, BeforeValidator, Field

from jne.config import Device, ScriptConfig, Section, Seed, StatsConfig, validated
from jne.jacobian.variants import check_variant

_NEWEST = ("newest", "newest_of_all_data")


class SelectivityConfig(Section):
    """conf/evaluate.yaml: selectivity"""

    clusters: Literal["auto", "categories", "tsne"]
    max_clusters: int = Field(ge=2)
    n_permutations: int = Field(ge=99)


class InferenceConfig(Section):
    """conf/evaluate.yaml: inference"""

    q: float = Field(gt=0, lt=1)


class JacobianConfig(Section):
    """conf/evaluate.yaml: jacobian, for variants of JNE that a run did not store"""

    device: Device
    max_memory_gb: float = Field(gt=0)


class EvaluateConfig(ScriptConfig):
    """conf/evaluate.yaml"""

    runs: Annotated[
        Literal["newest", "newest_of_all_data"] | list[str],
        # One run may be given without brackets: runs=outputs/runs/...
        BeforeValidator(lambda v: [v] if isinstance(v, str) and v not in _NEWEST else v),
        Field(min_length=1),
    ]
    filter: str
    by: Annotated[str | None, Field(pattern=r"^\w+(\.\w+)*$")]
    voxels: Literal["significant", "all"]
    rois: Annotated[list[str] | None, BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
    variants: list[Annotated[str, AfterValidator(check_variant)]]
    inference: InferenceConfig
    jacobian: JacobianConfig
    trust: list[Annotated[str, Field(pattern=r"^\w+(\.\w+)*\.?$")]]
    selectivity: SelectivityConfig
    test: dict[str, Any] | None
    """conf/test: an external test set"""
    features: dict[str, Any]
    """conf/features: of the external test set"""
    stats: StatsConfig
    seed: Seed


def check_config(composed: DictConfig) -> EvaluateConfig:
    """The checked config. Raises InputError naming the key."""
    return validated(EvaluateConfig, composed)
