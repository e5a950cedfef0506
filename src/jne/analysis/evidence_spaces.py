r"""In which feature space is what an encoder has learned nonlinear, as unseen responses have it?

The nonlinear part g of a prediction (`jne.analysis.evidence`) is split into g_k, what is nonlinear
in space k while the other spaces are held at their mean, and the interaction of spaces, which is
the rest:

.. math:: g = \sum_k g_k + g_{\times}

None of them has a linear part. Responses are regressed on the linear regressors and on all
components together, so a component's coefficient tells what no other explains.

n unseen stimuli, V voxels, C components: K spaces and their interaction.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jne.analysis.evidence import RATE, Columns, Evidence, evidence_of
from jne.analysis.prediction import fdr
from jne.utils.notebook import summary_html, summary_text

INTERACTION = "interaction"
LINEAR = "linear"


class SpaceEvidence(NamedTuple):
    """What unseen responses say of each voxel and component; (V, C) float64."""

    components: tuple[str, ...]
    """(C,): the spaces, then `interaction`."""
    z: NDArray[np.float64]
    """Standard normal where the voxel is linear; NaN where the prediction lacks the component."""
    p: NDArray[np.float64]
    """One-sided: the component predicts responses beyond the others."""
    p_fdr: NDArray[np.float64]
    """p adjusted over voxels by Benjamini-Hochberg, each component by itself."""
    slope: NDArray[np.float64]
    """1 where the component has the right size, 0 where it is noise."""
    slope_error: NDArray[np.float64]
    r2: NDArray[np.float64]
    """Variance of the responses that the component alone explains, over their variance. Unbiased,
    so negative half the time where there is none."""
    share: NDArray[np.float64]
    """r2 over the variance that all regressors explain together: the validated share of a
    component. NaN where that is nothing."""

    def assigned(self, rate: float = RATE) -> NDArray[np.str_]:
        """(V,), a component's name, or `linear`.

        A voxel has evidence where the smallest p of its components, times their number, is below
        this rate of false discoveries over voxels. It is given to the component that alone explains
        most; without evidence it is `linear`.
        """
        p = np.where(np.isnan(self.p), 1, self.p).min(axis=1)
        p_fdr = fdr(np.minimum(len(self.components) * p, 1))
        best = np.where(p_fdr <= rate, self.r2.argmax(axis=1), -1)
        return np.array([*self.components, LINEAR])[best]

    def __repr__(self) -> str:
        return summary_text(self._title, self._shares)

    def _repr_html_(self) -> str:
        return summary_html(self._title, self._shares)

    @property
    def _shares(self) -> dict[str, NDArray]:
        return {f"share of {name}": self.share[:, k] for k, name in enumerate(self.components)}

    @property
    def _title(self) -> str:
        names, counts = np.unique(self.assigned(), return_counts=True)
        given = ", ".join(f"{n} {name}" for name, n in zip(names, counts, strict=True))
        return f"Evidence by feature space: {len(self.z)} voxels, {given}"


def space_evidence_of(
    responses: Columns,
    prediction: Columns,
    components: Sequence[Columns],
    linear: Sequence[Columns],
    spaces: Iterable[str],
    n_voxels: int,
    *,
    groups: NDArray[np.int64] | None = None,
    crossed: NDArray | None = None,
) -> SpaceEvidence:
    """Evidence of each voxel and component.

    Parameters
    ----------
    responses, prediction, linear, groups, crossed
        As of `evidence_of`.
    components : sequence of C (n, V) arrays
        What is nonlinear in the prediction, of each space, then the interaction.
    spaces : names of the C - 1 spaces
    n_voxels : V

    Returns
    -------
    SpaceEvidence
    """
    sets = np.zeros(n_voxels, dtype=np.int64)
    results: list[Evidence] = []
    for k, component in enumerate(components):
        # What the prediction has beside it, f - g_k, is its linear part and the other components
        others = [*components[:k], *components[k + 1 :]]
        arrays = responses, prediction, component, [*linear, *others], sets, 1
        results.append(evidence_of(*arrays, groups=groups, crossed=crossed)[0])
    names = ("z", "p", "p_fdr", "slope", "slope_error", "r2_nonlinear", "share")
    columns = (np.stack([getattr(x, name) for x in results], axis=1) for name in names)
    return SpaceEvidence((*spaces, INTERACTION), *columns)
