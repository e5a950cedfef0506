"""The measures of nonlinearity that `simulation=measures` compares.

A measure is a function of a fitted cohort that returns a number per voxel, or a `Measured`, which
also has p. All that measures share (encoders, predictions, Jacobians) is computed once per cohort.

n test stimuli, D features, V voxels.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.func import jacrev, vmap

from jne.analysis import nonlinearity
from jne.analysis.contrast import quantile
from jne.analysis.evidence import Evidence, evidence_of
from jne.analysis.evidence_sums import EvidenceSums
from jne.analysis.prediction import fdr, r2_score
from jne.data.datamodule import EncodingData
from jne.fitting.baseline import linear_predictions
from jne.fitting.fit import Fitted, fit
from jne.jacobian import VARIANTS, jacobian_deviation
from jne.measuring.evidence import nonlinear_part
from jne.measuring.share import MeasuredShare, ShareConfig, measure_share
from jne.stages import Stages
from jne.training.config import MethodConfig

KERNEL = {"_target_": "jne.encoders.KernelRegression"}

T = TypeVar("T")


class Measured(NamedTuple):
    """What a measure says of the voxels, (V,) each."""

    value: NDArray[np.float64]
    """The larger, the more nonlinear; NaN where it is not defined."""
    p: NDArray[np.float64] | None = None
    """Of a linear voxel, uniform between 0 and 1."""
    q: NDArray[np.float64] | None = None
    """p adjusted by Benjamini-Hochberg, which `measured` fills in."""


@dataclass
class Clock:
    """Values that are computed once, and CPU seconds of each, without those that it asks for."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Those that are in it stay: they may be of an earlier computation, now stored."""
    _values: dict[str, Any] = field(default_factory=dict)
    _needs: dict[str, set[str]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _inner: list[float] = field(default_factory=list)

    def value(self, name: str, compute: Callable[[], T]) -> T:
        """What `compute` returned when it was first called under this name."""
        if self._open:
            self._needs[self._open[-1]].add(name)
        if name not in self._values:
            self._needs[name] = set()
            self._open.append(name)
            self._inner.append(0.0)
            start = time.process_time()
            self._values[name] = compute()
            total = time.process_time() - start
            self._open.pop()
            self.seconds.setdefault(name, total - self._inner.pop())
            if self._inner:
                self._inner[-1] += total
        result: T = self._values[name]
        return result

    def cost(self, name: str) -> float:
        """CPU seconds of a value and of all that it needs."""
        needed, new = set(), {name}
        while new:
            needed |= new
            new = {need for one in new for need in self._needs[one]} - needed
        return sum(self.seconds[one] for one in needed)


def _once(compute: Callable[["FittedCohort"], T]) -> property:
    """A property that is computed when it is first asked for."""

    def value(cohort: "FittedCohort") -> T:
        return cohort.clock.value(compute.__name__, partial(compute, cohort))

    return property(value, doc=compute.__doc__)


@dataclass(frozen=True)
class FittedCohort:
    """Data, and what is fitted to them when it is first asked for."""

    data: EncodingData
    config: MethodConfig
    stages: Stages
    clock: Clock = field(default_factory=Clock)

    @property
    def x(self) -> Tensor:
        """(n, D), features of the test stimuli."""
        return self.data.split("test")[0]

    @property
    def y(self) -> NDArray[np.float32]:
        """(n, V), their responses: means over repeats, standardised."""
        return self.data.split("test")[1].numpy()

    @_once
    def encoder(self) -> Fitted:
        """The nonlinear encoder."""
        return fit(self.data, self.config, self.stages)

    @_once
    def prediction(self) -> NDArray[np.float32]:
        """(n, V), of the nonlinear encoder."""
        return self._predicted(self.encoder, self.x)

    @_once
    def linear(self) -> list[NDArray[np.float32]]:
        """Predictions (n, V) of ridge and of least-squares regression."""
        return linear_predictions(self.data, self.stages)

    @_once
    def kernel(self) -> NDArray[np.float32]:
        """(n, V), predictions of kernel ridge regression."""
        config = self.config.model_copy(update={"encoder": KERNEL})
        return self._predicted(fit(self.data, config, self.stages), self.x)

    @_once
    def evidence(self) -> tuple[Evidence, EvidenceSums]:
        """What the test responses say of voxels, and of cells of them."""
        nonlinear = nonlinear_part(self.encoder.encoder, self.data)
        sets = self.cells
        return evidence_of(
            self.y, self.prediction, nonlinear, self.linear, sets, int(sets.max()) + 1
        )

    @property
    def cells(self) -> NDArray[np.int64]:
        """(V,), the number of each voxel's ROI, in the order of their names."""
        rois = self.data.prepared.voxels["roi"].to_numpy()[self.data.kept]
        return np.unique(rois, return_inverse=True)[1].astype(np.int64)

    @_once
    def share(self) -> MeasuredShare:
        """The nonlinear share without an encoder."""
        share = measure_share(self.data, ShareConfig(n_components=None), self.stages)
        assert share is not None
        return share

    @_once
    def deviations(self) -> dict[str, NDArray[np.float32]]:
        """(n, V) each, of the variants of JNE; gain and shape."""
        names = list(VARIANTS)
        return jacobian_deviation(self.encoder.encoder, self.x, variant=names, gain_shape=True)

    @_once
    def jacobians(self) -> Tensor:
        """(n, V, D), of the nonlinear encoder."""
        return vmap(jacrev(self.encoder.encoder), chunk_size=64)(self.x).detach()

    @staticmethod
    @torch.no_grad()
    def _predicted(fitted: Fitted, features: Tensor) -> NDArray[np.float32]:
        return np.asarray(fitted.encoder(features).numpy())


Measure = Callable[[FittedCohort], Measured | NDArray]


def r2_gap(cohort: FittedCohort) -> Measured:
    """R2 of the encoder minus that of ridge regression."""
    return _gap(cohort, cohort.prediction)


def kernel_gap(cohort: FittedCohort) -> Measured:
    """R2 of kernel ridge regression minus that of ridge regression."""
    return _gap(cohort, cohort.kernel)


def _gap(cohort: FittedCohort, prediction: NDArray) -> Measured:
    """p: that of a paired t test of squared errors over test stimuli, one-sided."""
    y, ridge = cohort.y, cohort.linear[0]
    better = np.square(y - ridge) - np.square(y - prediction)
    p = stats.ttest_1samp(better, 0, alternative="greater").pvalue
    return Measured(r2_score(y, prediction) - r2_score(y, ridge), np.asarray(p))


def _variant(name: str) -> Measure:
    def variant(cohort: FittedCohort) -> Measured:
        return Measured(nonlinearity.jne(cohort.deviations[name]))

    return variant


def jne_calibrated(cohort: FittedCohort) -> Measured:
    """JNE times the slope of the nonlinear part in unseen responses, 0 where that is negative."""
    slope = cohort.evidence[0].slope
    return Measured(np.maximum(slope, 0) * nonlinearity.jne(cohort.deviations["l1"]))


def nonlinear_z(cohort: FittedCohort) -> Measured:
    """z of the nonlinear part in unseen responses, with its own p."""
    return Measured(cohort.evidence[0].z, cohort.evidence[0].p)


def validated_share(cohort: FittedCohort) -> Measured:
    """Of what is predicted in unseen responses, how much is nonlinear. p: that of z."""
    return Measured(cohort.evidence[0].share, cohort.evidence[0].p)


def nonlinear_share(cohort: FittedCohort) -> Measured:
    """The share of the signal that is nonlinear, without an encoder. p: of its interval."""
    columns = cohort.share.columns
    share, low = (columns[f"nonlinear_share{end}"].astype(np.float64) for end in ("", "_low"))
    # One-sided, as if the half of the 95 % interval were that of a normal distribution
    return Measured(share, np.asarray(stats.norm.sf(quantile() * share / (share - low))))


def gain_change(cohort: FittedCohort) -> Measured:
    """How much the gain of the Jacobian varies (Keshishian et al. 2020)."""
    return Measured(nonlinearity.gain_change(cohort.deviations["gain"]))


def shape_change(cohort: FittedCohort) -> Measured:
    """How much the direction of the Jacobian varies (Keshishian et al. 2020)."""
    return Measured(nonlinearity.shape_change(cohort.deviations["shape"]))


def linbridge_bias(cohort: FittedCohort) -> Measured:
    """What the bias of LinBridge adds to R2 (Gao et al. 2024, arXiv 2410.20053).

    LinBridge splits an encoder's prediction into that of one linear map, which it learns from the
    Jacobians by contrastive learning in few dimensions, and a bias for each stimulus. Here the
    map is the mean Jacobian, the best by least squares, so nothing is learned.
    """
    mean = cohort.jacobians.mean(dim=0)
    linear = (cohort.x @ mean.T).numpy()
    linear += (cohort.prediction - linear).mean(axis=0)
    return Measured(r2_score(cohort.y, cohort.prediction) - r2_score(cohort.y, linear))


def complexity(cohort: FittedCohort) -> Measured:
    """Of the Jacobians (n, D) of a voxel, the sum of singular values over the largest.

    About how many linear maps they are made of: 1 for a linear voxel (Keshishian et al. 2020;
    `complexity` of github.com/naplab/DSTRF).
    """
    values = torch.linalg.svdvals(cohort.jacobians.transpose(0, 1))
    return Measured((values.sum(dim=1) / values[:, 0]).double().numpy())


def rms_deviation(cohort: FittedCohort) -> Measured:
    """Root mean square over stimuli of the L2 deviation from the mean Jacobian.

    JNE-L2 is the spread of the same deviations, this is their size.
    """
    return Measured(np.sqrt(np.square(cohort.deviations["l2"].astype(np.float64)).mean(axis=0)))


MEASURES: Mapping[str, Measure] = {
    "r2_gap": r2_gap,
    "kernel_gap": kernel_gap,
    "jne": _variant("l1"),
    "jne_l2": _variant("l2"),
    "jne_zscore_l1": _variant("zscore_l1"),
    "jne_zscore_l2": _variant("zscore_l2"),
    "jne_calibrated": jne_calibrated,
    "validated_share": validated_share,
    "nonlinear_z": nonlinear_z,
    "nonlinear_share": nonlinear_share,
    "gain_change": gain_change,
    "shape_change": shape_change,
    "rms_deviation": rms_deviation,
    "linbridge_bias": linbridge_bias,
    "complexity": complexity,
}


def measured(name: str, measure: Measure, cohort: FittedCohort) -> Measured:
    """What a measure says, with q wherever there is p. Raises ValueError for another shape."""
    result = cohort.clock.value(f"measure {name}", partial(measure, cohort))
    value, p, _ = result if isinstance(result, Measured) else Measured(np.asarray(result))
    shape = (cohort.data.n_trained,)
    for part in (value, p):
        if part is not None and np.shape(part) != shape:
            raise ValueError(f"returned {np.shape(part)}, and {shape} is one number per voxel")
    return Measured(value, p, None if p is None else fdr(p))
