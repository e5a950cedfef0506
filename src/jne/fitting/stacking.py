"""`readout=stacked`: the last layer of an encoder, stacked on ridge regression from its features.

r: the prediction of ridge regression; l and g: the best linear approximation, over stimuli, of a
readout's prediction, and what it leaves. The encoder becomes r + a (l - r) + b g, with a and b for
each voxel from the validation stimuli: one linear path and one scaled readout.

The readout has the penalties of ridge regression from the features, whatever the hidden layers have
seen of the responses. a and b are those of fits to the training stimuli, each the mean given those
of all voxels, and are applied to fits to training and validation stimuli (docs/encoders.md).

n stimuli, D features, H width of the last hidden layer, v of the V' trained voxels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.data.datamodule import StandardisedData
from jne.data.folds import cross_validation, untested
from jne.encoders import KernelRegression, is_linear
from jne.encoders.ridge import RidgeCV, RidgeSolver, choose_together
from jne.fitting.readout import LEAST_NONLINEAR, RidgeReadout, hidden_scale, last_layer
from jne.utils.blocks import voxel_blocks
from jne.utils.progress import say, stage_progress

# Of the variance of what the readout is solved from: the hidden layer's.
HIDDEN_SHARE = 0.3
# Standard deviation of float32 predictions, where responses have 1, that differ by rounding.
_ROUNDING = 1e-5
_FEWEST_TO_STACK = 4  # two slopes, a mean, and one more
_N_SWEEPS = 100
_VOXELS_AT_ONCE = 2**11


def stacking_lacks(encoder: nn.Module, data: StandardisedData) -> str | None:
    """What a nonlinear encoder, or its data, must have to be stacked, and has not.

    Raises InputError where the encoder does not end in a linear layer.
    """
    if not isinstance(getattr(encoder, "linear_path", None), nn.Linear):
        return "a linear path"
    if last_layer(encoder, data, data.rows["val"][:2], value="stacked")[0].bias is None:
        return "a bias in its last layer"
    if len(data.rows["val"]) < _FEWEST_TO_STACK:
        return f"{_FEWEST_TO_STACK} validation stimuli"
    return None


def stackable(encoder: nn.Module, data: StandardisedData) -> bool:
    """Whether `readout=stacked` is more than `readout=ridge`; says why a nonlinear encoder's isn't.

    Raises InputError where the encoder does not end in a linear layer.
    """
    if is_linear(encoder) or isinstance(encoder, KernelRegression):  # which is so anyway
        return False
    lacks = stacking_lacks(encoder, data)
    if lacks is not None:
        say(f"readout=stacked needs {lacks}, so the readout is that of ridge", style="yellow")
    return lacks is None


def stack_readout(
    encoder: nn.Module, data: StandardisedData, chosen: NDArray[np.float32] | None = None
) -> RidgeReadout:
    """Replace the weights of the encoder's last layer and linear path by those of stacking.

    Voxels are taken a block at a time, three times: for their slopes, for the error that voxels
    share, for the weights. Its loss is at a and b, by weights that were fitted to the training
    stimuli. encoder: nonlinear, and nothing is missing (`stacking_lacks`). chosen: (2, V'), the
    penalties of ridge regression from the features and their ends of the grid, where they are
    chosen already (`jne.fitting.baseline.ridge_penalties`).
    """
    (solved,) = stack_readouts([encoder], [data], chosen)
    return solved


@torch.no_grad()
def stack_readouts(
    encoders: Sequence[nn.Module],
    data: Sequence[StandardisedData],
    chosen: NDArray[np.float32] | None = None,
) -> list[RidgeReadout]:
    """As `stack_readout`, of the encoders of all folds of one data set.

    a and b of a fold are regressed on the validation stimuli of all folds, each predicted from its
    own fold's training stimuli, but for those that the fold tests. The cross-validations of all
    folds choose the penalties, but for those stimuli.
    """
    folds = [_Fold(*fold) for fold in zip(encoders, data, strict=True)]
    if chosen is not None:
        (alone,) = folds
        alone.penalty[:], alone.end[:] = chosen
    choosing = None
    if len(folds) > 1:
        choosing = [[untested(fold.rows, part) for fold in folds] for part in data]
    used = [[untested(other.rows["val"], part) for other in data] for part in data]
    n_outputs, n_slopes = data[0].n_outputs, [sum(map(np.sum, masks)) for masks in used]
    slopes, errors = np.empty((2, len(folds), 2, n_outputs))
    with stage_progress() as progress:
        task = progress.add_task("stacked readout", total=3 * n_outputs, unit="voxels")

        def regressions(
            solve: bool,
        ) -> Iterator[tuple[int, slice, tuple[NDArray, list[NDArray], tuple[NDArray, ...]]]]:
            for voxels in voxel_blocks(n_outputs, _VOXELS_AT_ONCE):
                responses = [fold.responses(voxels) for fold in folds]
                if solve and chosen is None:
                    centred = [y - y.mean(dim=0) for y in responses]
                    choices = choose_together([fold.ridge for fold in folds], centred, choosing)
                    for fold, of_fold in zip(folds, choices, strict=True):
                        fold.penalty[voxels], fold.end[voxels] = of_fold.penalty, of_fold.end
                held_out = [
                    fold.held_out(y, voxels, solve)
                    for fold, y in zip(folds, responses, strict=True)
                ]
                for k, masks in enumerate(used):
                    left, *parts = (
                        np.concatenate([values[m] for values, m in zip(each, masks, strict=True)])
                        for each in zip(*held_out, strict=True)
                    )
                    yield k, voxels, (left, parts, regress(left, parts))
                progress.advance(task, voxels.stop - voxels.start)

        for k, voxels, (_, _, (slope, error, _)) in regressions(solve=True):
            slopes[k][:, voxels], errors[k][:, voxels] = slope, error
        pools = [
            [
                Pool(slope, error, zeros)
                for slope, error, zeros in zip(*of_fold, (False, True), strict=True)
            ]
            for of_fold in zip(slopes, errors, strict=True)
        ]
        pulls = [np.zeros((2, n)) for n in n_slopes]
        for k, voxels, (_, parts, (_, _, rest)) in regressions(solve=False):
            for pull, pool, part in zip(pulls[k], pools[k], parts, strict=True):
                pull += pool.pull(part, rest, voxels)
        solved = []
        for fold, of_fold, pull in zip(folds, pools, pulls, strict=True):
            linear, nonlinear = map(Pool.shrunk, of_fold, pull)
            a = linear.clip(0, 1).astype(np.float32)
            b = nonlinear.clip(LEAST_NONLINEAR).astype(np.float32)
            for voxels in voxel_blocks(n_outputs, _VOXELS_AT_ONCE):
                fold.write(voxels, a[voxels], b[voxels])
                progress.advance(task, (voxels.stop - voxels.start) / len(folds))
            solved.append(fold.solved(a, b))
    return solved


class _Fold:
    """An encoder whose readout is stacked, and the data that it is of."""

    def __init__(self, encoder: nn.Module, data: StandardisedData) -> None:
        rows = data.rows["train"], data.rows["val"]
        self._data, self.rows, self._n = data, np.concatenate(rows), len(rows[0])
        readout, self._h = last_layer(encoder, data, self.rows, value="stacked")
        path, self._x = encoder.linear_path, data.features[self.rows]
        assert isinstance(path, nn.Linear)
        assert readout.bias is not None
        self._readout, self._path, self._bias = readout, path, readout.bias
        of_train = Parts(self._h[: self._n], self._x[: self._n])
        self._predict = of_train.predictor(self._h[self._n :], self._x[self._n :])
        self.penalty, self.end = np.empty((2, data.n_outputs), dtype=np.float32)
        self._products = np.empty((3, 3, data.n_outputs))
        self._noise = np.empty(data.n_outputs, dtype=np.float32)
        self._whole: Parts | None = None

    @cached_property
    def ridge(self) -> RidgeCV:
        return RidgeCV(self._x - self._x.mean(dim=0), cross_validation(self._data))

    def responses(self, voxels: slice) -> Tensor:
        """To training, then validation stimuli, (N, v)."""
        return self._data.responses.block(self.rows, voxels)

    def held_out(self, y: Tensor, voxels: slice, solve: bool) -> list[NDArray]:
        """y - r, l - r and g of the validation stimuli, (n, v) each; at first, `solve`.

        y: of `responses`.
        """
        r, *parts = self._predict(y[: self._n], torch.from_numpy(self.penalty[voxels]))
        held_out = [(y[self._n :] - r).numpy(), *(part.numpy() for part in parts)]
        if solve:
            terms = [term.astype(np.float64) for term in held_out]
            for i, j in combinations_with_replacement(range(3), 2):
                product = np.einsum("nv,nv->v", terms[i], terms[j]) / len(r)
                self._products[i, j, voxels] = self._products[j, i, voxels] = product
        return held_out

    def write(self, voxels: slice, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
        """The weights of v voxels, fitted to training and validation stimuli."""
        self._whole = self._whole or Parts(self._h, self._x)
        y = self.responses(voxels)
        maps = self._whole.solve(y, torch.from_numpy(self.penalty[voxels]))
        weights = maps.stacked(torch.from_numpy(a), torch.from_numpy(b))
        self._readout.weight[voxels], self._path.weight[voxels] = (w.T for w in weights)
        mean = self._whole.mean_h @ weights[0] + self._whole.mean_x @ weights[1]
        self._bias[voxels] = maps.offset - mean
        if self._path.bias is not None:
            self._path.bias[voxels] = 0
        noise = self._whole.noise(torch.from_numpy(self.penalty[voxels]))
        self._noise[voxels] = b**2 * noise.numpy()

    def solved(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> RidgeReadout:
        at = np.stack([np.ones_like(a), -a, -b]).astype(np.float64)
        loss = np.einsum("iv,ijv,jv->v", at, self._products, at).mean()
        return RidgeReadout(self.penalty, self.end, float(loss), a, b, self._noise)


@dataclass(frozen=True)
class Maps:
    """r, l and g of v voxels, as maps of features and hidden layer that are centred."""

    offset: Tensor
    """(v,), the mean responses."""
    ridge: Tensor
    """r, (D, v)."""
    linear: Tensor
    """l, (D, v)."""
    readout: Tensor
    """g is this map of the hidden layer, (H, v),"""
    vanishing: Tensor
    """minus this one of the features, (D, v): its linear approximation."""

    def stacked(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Readout (H, v) and linear path (D, v) of r + a (l - r) + b g."""
        path = (1 - a) * self.ridge + a * self.linear - b * self.vanishing
        return b * self.readout, path


class Parts:
    """r, l and g as n stimuli determine them, for any voxels."""

    def __init__(self, h: Tensor, x: Tensor) -> None:
        """h: the hidden layer (n, H). x: the features (n, D)."""
        self.mean_h, self.mean_x = h.mean(dim=0), x.mean(dim=0)
        h, x = h - self.mean_h, x - self.mean_x
        self._scale = hidden_scale(h, x, HIDDEN_SHARE)
        self._both = RidgeSolver(torch.cat([h * self._scale, x], dim=1))
        self._ridge = RidgeSolver(x)
        self._linear_h = torch.linalg.lstsq(x.double(), h.double()).solution
        left = h - (x.double() @ self._linear_h).float()
        nonlinear = torch.cat([left * self._scale, torch.zeros_like(x)], dim=1)
        self.noise = self._both.noise(nonlinear)
        """Of penalties (v,): the mean of g squared over these stimuli where responses are noise of
        variance 1. With the hidden layer as it is, whatever that has seen of the noise."""

    def solve(self, y: Tensor, penalty: Tensor) -> Maps:
        """Of responses (n, v), at a penalty (v,) for each voxel."""
        offset, n_hidden = y.mean(dim=0), len(self.mean_h)
        y = y - offset
        both = self._both.weights(y, penalty)
        readout, path = self._scale * both[:n_hidden], both[n_hidden:]
        vanishing = (self._linear_h @ readout.double()).float()
        return Maps(offset, self._ridge.weights(y, penalty), path + vanishing, readout, vanishing)

    def predictor(self, h: Tensor, x: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        """A function of what `solve` takes: r, l - r and g, (m, v) each, of m other stimuli.

        Without weights, which are many times as many. h: (m, H). x: (m, D).
        """
        h, x = (h - self.mean_h).double(), (x - self.mean_x).double()
        directions = self._both.directions.double()
        of_h, of_x = self._scale * directions[: h.shape[1]], directions[h.shape[1] :]
        to_l = (x @ (of_x + self._linear_h @ of_h)).float()
        to_g = ((h - x @ self._linear_h) @ of_h).float()
        to_r = (x @ self._ridge.directions.double()).float()

        def predict(y: Tensor, penalty: Tensor) -> tuple[Tensor, ...]:
            offset = y.mean(dim=0)
            y = y - offset
            both = self._both.shrink(self._both.project(y), penalty)
            r = to_r @ self._ridge.shrink(self._ridge.project(y), penalty)
            return r + offset, to_l @ both - r, to_g @ both

        return predict


def regress(y: NDArray, x: list[NDArray]) -> tuple[NDArray, NDArray, NDArray]:
    """Slopes and HC3 errors (K, v) of y (n, v) on K regressors and a constant; residuals (n, v).

    Slopes are NaN where a regressor has no other variance than that of rounding, and is left out.
    """
    y, c = y - y.mean(axis=0), np.stack([v - v.mean(axis=0) for v in x]).astype(np.float64)
    size = c.std(axis=1)
    size[size < _ROUNDING] = np.nan
    c = np.nan_to_num(c / size[:, None])
    inverse = np.linalg.pinv(np.einsum("knv,jnv->vkj", c, c), rcond=1e-8, hermitian=True)
    by_regressor = np.ascontiguousarray(inverse.transpose(1, 2, 0))  # (K, K, v): v is last in all
    pulls = np.einsum("kjv,jnv->knv", by_regressor, c)
    slope = np.einsum("knv,nv->kv", pulls, y)
    rest = y - np.einsum("kv,knv->nv", slope, c)
    free = np.maximum(1 - 1 / len(y) - np.einsum("knv,knv->nv", pulls, c), 1e-6)
    error = np.sqrt(np.square(pulls * rest / free).sum(axis=1))
    return slope / size, error / size, rest


class Pool:
    """Slopes of voxels, each as its mean given those of all, 0 or more.

    Slopes are normal around m with variance t, or, with `zeros`, 0 in some voxels; m, t and the
    share of the others are estimated from all voxels.
    """

    def __init__(self, slope: NDArray, error: NDArray, zeros: bool) -> None:
        """slope, error: (V',)."""
        self._usable = np.isfinite(slope) & np.isfinite(error) & (error > 0)
        self._b, self._square = b, square = slope[self._usable], error[self._usable] ** 2
        self.weights = np.zeros(len(slope))
        """(V',), those with which slopes have the mean m."""
        self._m, self._t, self._z = 0.0, 0.0, np.ones(len(b))
        if not len(b):
            return
        share, t, z = 1.0, 0.0, self._z
        m = (b / square).sum() / (1 / square).sum()
        for sweep in range(2 * _N_SWEEPS):  # first as if none were 0
            w = z / (square + t)
            m = (w * b).sum() / w.sum()
            moment = w**2 / np.maximum(z, 1e-9)
            t = max(0.0, (moment * (np.square(b - m) - square)).sum() / moment.sum())
            if zeros and sweep >= _N_SWEEPS:
                share, m = 0.5 if sweep == _N_SWEEPS else z.mean(), max(m, 0.0)
                other = np.exp(-0.5 * np.square(b - m) / (square + t)) / np.sqrt(square + t)
                none = np.exp(-0.5 * np.square(b) / square) / np.sqrt(square)
                z = share * other / (share * other + (1 - share) * none + 1e-300)
        w = z / (square + t)
        self.weights[self._usable] = w / w.sum()
        self._m, self._t, self._z = m, t, z

    def pull(self, x: NDArray, rest: NDArray, voxels: slice) -> NDArray[np.float64]:
        """How much each stimulus moves m (n,), by these voxels.

        x, rest: (n, v), the regressor and what the regression leaves.
        """
        x = x.astype(np.float64) - x.mean(axis=0)
        total = np.square(x).sum(axis=0)
        weights = np.where(total > 0, self.weights[voxels] / np.where(total > 0, total, 1), 0)
        result: NDArray[np.float64] = (x * rest) @ weights
        return result

    def shrunk(self, pull: NDArray[np.float64]) -> NDArray[np.float64]:
        """The slopes (V',). pull: (n,), by all voxels; m is shrunk by its error over stimuli."""
        b, square, t, z = self._b, self._square, self._t, self._z
        share = z.mean() if len(z) else 1.0
        m = max(self._m, 0.0)
        m *= max(0.0, 1 - np.square(pull).sum() / max(m**2, 1e-30))
        mean = z * np.maximum((b * t + m * square) / (square + t), 0)
        own = np.maximum(0, 1 - square / np.maximum(np.square(b), 1e-30)) * (b > 0)
        result = np.zeros(len(self.weights))
        result[self._usable] = mean * (share + (1 - share) * own)
        return result
