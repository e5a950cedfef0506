"""`JNERegressor`: train.py's encoder, training and JNE as an estimator of scikit-learn.

N stimuli, D features, V voxels.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from jne.analysis import nonlinearity
from jne.analysis.evidence import Evidence, evidence_of
from jne.analysis.evidence_sums import MIN_STIMULI
from jne.analysis.nonlinear_share import nonlinear_share
from jne.analysis.share_sums import Share
from jne.data.datamodule import StandardisedData
from jne.data.folds import Belonging
from jne.encoders import RawEncoder
from jne.errors import InputError
from jne.estimator.parameters import Parameters, checked
from jne.estimator.predictor import Predictor
from jne.estimator.responses import as_float32, check_varies, without_missing
from jne.estimator.rows import FEWEST_TO_TRAIN, belonging_of, validation_rows
from jne.fitting.baseline import linear_predictions
from jne.fitting.fit import fit as train
from jne.jacobian import jacobian_deviation
from jne.jacobian.measurement import FEWEST_STIMULI
from jne.measuring.evidence import nonlinear_part
from jne.utils.bars import has_viewer
from jne.utils.blocks import among_all
from jne.utils.progress import without_progress


class JNERegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A voxelwise encoding model, and how nonlinear it is, with scikit-learn's interface.

    It is what train.py trains and measures, to the same numbers on the same arrays: a residual
    network between standardised features and responses, trained with early stopping, whose readout
    is then solved for with a penalty per voxel (docs/encoders.md). Features and responses are
    standardised inside, by the stimuli that train. So a scaler before it changes neither
    predictions nor JNE, which has train.py's units: standard deviations of the response per
    standard deviation of a feature.

    A voxel that is constant over the training stimuli is predicted to be that constant, and has NaN
    as its JNE. A voxel with NaN in y is left out, with a warning: it has NaN everywhere. With y of
    shape (N,), all results are without the axis V.

    Parameters
    ----------
    encoder : {"nonlinear", "kernel"}
        A residual network; or kernel ridge regression stacked on ridge regression, which is solved
        for: of the other parameters, it has the last three alone (docs/encoders.md).
    activation : {"relu", "leaky_relu", "gelu", "swish", "tanh"}
        All parameters are keys of train.py, under their names there.
    placement : {"both", "loc1", "loc2", "none"} or list of int
        Which hidden layers have an activation: both (all), loc1 (the first), loc2 (the later
        ones), none (a linear encoder, whose JNE is exactly 0), or their numbers from 1.
    hidden_width, n_hidden : int
        Width and number of the hidden layers.
    bias : bool
        Whether layers have biases.
    linear_path : bool
        Whether a linear map of the features is added.
    readout : {"stacked", "ridge", "trained"}
        Whether the last layer is solved for after training, stacked on ridge regression (which
        needs a linear path, a bias and four stimuli to validate on) or by itself, or is as training
        left it.
    optimizer : {"adam", "adamw"}
    lr : float
        Learning rate of the optimiser.
    weight_decay : float or "auto"
        Weight decay of the optimiser; auto finds one that fits the data while training, where it is
        a term of the loss (adam's).
    batch_size : int or None
        Stimuli per step; None for all.
    max_epochs : int
        Training ends there at the latest; with weight_decay="auto", with each of them.
    patience : int
        Epochs without a lower validation loss before it stops. The best epoch's weights are kept.
    validation_fraction : float
        The share of the stimuli that `fit` sets aside to validate on, at random, at least three of
        them. `fit` can be told which instead.
    precision : {"32-true", "bf16-mixed"}
        bf16-mixed on a device that multiplies bfloat16 faster.
    device : str
        cpu or cuda, where encoders are trained and Jacobians computed.
    max_memory_gb : float
        Bound on the working memory of the Jacobians.
    random_state : int, RandomState or None
        Seed of the weights, of the order of the batches and of the stimuli to validate on; 0 or
        more. With None or a RandomState each fit draws a new seed.
    verbose : int
        0 for no progress bars; a terminal shows them, and a notebook with ipywidgets.

    Attributes
    ----------
    encoder_ : ResidualEncoder or KernelRegression
        Trained, from standardised features to the voxels that are not constant.
    epochs_ : DataFrame
        One row per epoch.
    best_epoch_ : int
        The epoch whose weights were kept, from 1.
    weight_decay_ : float
        The weight decay that it was trained with.
    validation_ : (n_val,) array of int
        The rows that validated.
    ridge_ : object
        Ridge regression on the same stimuli, a penalty per voxel: what the encoder has to beat.
        With `predict(X)` and `score_voxels(X, y)`; fitted on first use.
    """

    def __init__(
        self,
        *,
        encoder: str = "nonlinear",
        activation: str = "relu",
        placement: str | list[int] = "both",
        hidden_width: int = 256,
        n_hidden: int = 3,
        bias: bool = True,
        linear_path: bool = True,
        readout: str = "stacked",
        optimizer: str = "adam",
        lr: float = 1e-3,
        weight_decay: float | str = "auto",
        batch_size: int | None = 256,
        max_epochs: int = 512,
        patience: int = 8,
        validation_fraction: float = 0.1,
        precision: str = "32-true",
        device: str = "cpu",
        max_memory_gb: float = 1.0,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 1,
    ) -> None:
        self.encoder = encoder
        self.activation = activation
        self.placement = placement
        self.hidden_width = hidden_width
        self.n_hidden = n_hidden
        self.bias = bias
        self.linear_path = linear_path
        self.readout = readout
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.precision = precision
        self.device = device
        self.max_memory_gb = max_memory_gb
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        validation: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> "JNERegressor":
        """Train on features and responses. Returns self.

        Raises ValueError, with the parameter or argument to change, on bad input.

        Parameters
        ----------
        X : (N, D) array
            Features.
        y : (N, V) or (N,) array
            Responses. A voxel with NaN is not trained on, the others are.
        validation : (N,) array of bool, or (n_val,) array of int, optional
            The stimuli to validate on, as a mask or as row numbers; at least three, and two others
            train. Pipelines and searches
            pass it on: `pipeline.fit(X, y, jneregressor__validation=mask)`.
        groups : (N,) array, optional
            Stimuli of a group, such as repeats, a film or a run, are never on two sides of a cut:
            those that validate and those that choose penalties are whole groups.
        """
        settings = self._parameters()
        y, missing = without_missing(y)
        features, targets = validate_data(
            self,
            X,
            y,
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=FEWEST_TO_TRAIN + FEWEST_STIMULI,
        )
        n = len(features)
        features, feature_offset = as_float32(features, "X")
        responses, response_offset = as_float32(targets.reshape(n, -1), "y")
        belonging = belonging_of(groups, n)
        self.validation_ = validation_rows(validation, n, settings, belonging)
        rows = {"train": np.delete(np.arange(n), self.validation_), "val": self.validation_}
        check_varies(responses[rows["train"]])
        data = StandardisedData(
            features,
            responses,
            rows,
            batch_size=settings.batch_size,
            seed=settings.random_state,
            feature_offset=feature_offset,
            response_offset=response_offset,
            features_key="X",
            belonging=belonging,
        )
        with nullcontext() if settings.verbose and has_viewer() else without_progress():
            try:
                fitted = train(data, settings.config())
            except InputError as error:  # which names a key of train.py
                raise error.at(error.key.rpartition(".")[2]) from error
        self.encoder_: nn.Module = fitted.encoder
        self.epochs_: pd.DataFrame = fitted.history.epochs
        self.best_epoch_: int = fitted.history.best_epoch
        chosen = fitted.history.weight_decay
        self.weight_decay_ = float(settings.weight_decay) if chosen is None else chosen
        scaling = ("feature_mean", "feature_scale", "response_mean", "response_scale")
        trained = data.voxel_status == "ok"
        self._model = RawEncoder(
            self.encoder_, {name: getattr(data, name) for name in scaling}, trained
        )
        constants = np.where(missing, np.nan, responses[rows["train"][0]])[~trained]
        self._predictor = Predictor(self._model, constants, targets.ndim == 1)
        self._ridge: Predictor | None = None
        seen = np.concatenate([rows["train"], rows["val"]])  # `evidence` needs them
        self._features_seen = data.features[seen].numpy()
        self._responses_seen = data.responses[seen].numpy()
        self._groups_seen = None if belonging.groups is None else belonging.groups[seen]
        self._validation_features = data.split("val")[0]
        self._jne: NDArray[np.float64] | None = None
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.floating]:
        """Responses to features X (n, D), in the units of y: (n, V), or (n,).

        Computed in float64, and of that dtype, where X is float64 or float32 cannot hold what
        `fit` was given; else in float32.
        """
        features = self._features(X)
        return self._predictor.predict(features)

    def score_voxels(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """R2 of each voxel over the stimuli X (n, D), y (n, V): (V,), or a number.

        NaN for a voxel that is constant or has NaN in y, here or in `fit`'s.
        """
        features = self._features(X)
        return self._predictor.score_voxels(features, y)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The mean R2 over the voxels without NaN, as scikit-learn's regressors define it."""
        predicted, responses = self.predict(X), np.asarray(y, dtype=np.float64)
        scored = slice(None)
        if predicted.ndim == responses.ndim == 2 and predicted.shape == responses.shape:
            scored = ~np.isnan(predicted).any(axis=0) & ~np.isnan(responses).any(axis=0)
        return float(
            r2_score(responses[..., scored], predicted[..., scored], sample_weight=sample_weight)
        )

    @property
    def ridge_(self) -> Predictor:
        """Ridge regression on the stimuli that trained and validated."""
        check_is_fitted(self)
        if self._ridge is None:
            seen = torch.from_numpy(self._features_seen), torch.from_numpy(self._responses_seen)
            self._ridge = self._predictor.ridge(*seen, Belonging(self._groups_seen))
        return self._ridge

    def deviation(self, X: ArrayLike) -> NDArray[np.float32]:
        """How far the Jacobian at each stimulus is from their mean over X (n, D): (n, V), or (n,).

        See `jne.jacobian_deviation`.
        """
        return self._like_y(self._deviation(X))

    def jne(self, X: ArrayLike) -> NDArray[np.float64]:
        """JNE over the stimuli X (n, D), n at least 3: (V,), or a number."""
        return self._like_y(nonlinearity.jne(self._deviation(X, fewest=FEWEST_STIMULI)))

    def jne_ss(self, X: ArrayLike) -> NDArray[np.float32]:
        """JNE-SS, the nonlinearity at each stimulus of X (n, D), n at least 3: (n, V), or (n,)."""
        return self._like_y(nonlinearity.jne_ss(self._deviation(X, fewest=FEWEST_STIMULI)))

    def evidence(self, X: ArrayLike, y: ArrayLike) -> Evidence:
        """Does the nonlinear part of the predictions exist in responses that `fit` has not seen?

        X: (n, D), y: (n, V) or (n,), of stimuli that were in no call of `fit`. Ridge regression is
        fitted to those that were. Returns arrays (V,), NaN for voxels that were constant. See
        `jne.evidence`.
        """
        features = torch.from_numpy(np.array(self._features(X)))
        model, n, trained = self._model, len(features), self._model.trained.numpy()
        y = np.asarray(y, dtype=np.float64)
        if y.shape[:1] != (n,) or y.size != n * len(trained):
            raise InputError("y", f"must be ({n}, {len(trained)}), found {y.shape}")
        if not np.isfinite(y.reshape(n, -1)[:, trained]).all():
            raise InputError("y", "must be finite for the voxels that were trained")
        if n < MIN_STIMULI:
            raise InputError("X", f"{n} stimuli are too few to regress on")
        mean, scale = model.response_mean.numpy(), model.response_scale.numpy()
        unseen = (y.reshape(n, -1)[:, trained] - mean) / scale
        rows = np.split(np.arange(len(self._features_seen) + n), [len(self._features_seen)])
        groups = self._groups_seen
        if groups is not None:  # those of unseen stimuli choose nothing
            groups = np.concatenate([groups, np.full(n, -1)])
        x = np.concatenate([self._features_seen, model.standardised(features).numpy()])
        responses = np.concatenate([self._responses_seen, unseen.astype(np.float32)])
        with without_progress():
            data = StandardisedData(
                x,
                responses,
                {"train": rows[0], "val": rows[0][:0], "test": rows[1]},
                batch_size=None,
                seed=0,
                belonging=Belonging(groups),
            ).with_responses(responses)
            data.features = torch.from_numpy(x)  # as the encoder takes them
            with torch.no_grad():
                prediction = self.encoder_(data.split("test")[0]).numpy()
            inputs = nonlinear_part(self.encoder_, data), linear_predictions(data)
        sets = np.zeros(data.n_trained, dtype=np.int64)
        of_voxels, _ = evidence_of(data.split("test")[1].numpy(), prediction, *inputs, sets, 1)
        columns = (among_all(values, trained, len(trained)) for values in of_voxels)
        return Evidence(*map(self._like_y, columns))

    def share(self, X: ArrayLike, y: ArrayLike, *, n_components: int | None = None) -> Share:
        """The nonlinear share of the signal, which needs repeats and no fitted encoder.

        See `jne.nonlinear_share`. X: (N, D). y: (N, V, R), NaN where a repeat is missing, or
        (N, R) for one voxel. Returns arrays (V,).
        """
        trials = np.asarray(y)
        return nonlinear_share(
            X, trials[:, None] if trials.ndim == 2 else trials, n_components=n_components
        )

    @property
    def jne_(self) -> NDArray[np.float64]:
        """JNE over the stimuli that validated: (V,), or a number."""
        check_is_fitted(self)
        if self._jne is None:
            self._jne = nonlinearity.jne(self._deviation_at(self._validation_features))
        return self._like_y(self._jne)

    def _deviation(self, X: ArrayLike, fewest: int = 1) -> NDArray[np.float32]:
        features = torch.from_numpy(np.array(self._features(X)))
        if len(features) < fewest:
            raise InputError("X", f"{len(features)} stimuli, but JNE needs at least {fewest}")
        return self._deviation_at(self._model.standardised(features))

    def _deviation_at(self, features: torch.Tensor) -> NDArray[np.float32]:
        """(n, V) of standardised features (n, D)."""
        settings, trained = self._parameters(), self._model.trained.numpy()
        deviation = jacobian_deviation(
            self.encoder_,
            features,
            device=settings.device,
            max_memory_gb=settings.max_memory_gb,
        )
        assert isinstance(deviation, np.ndarray)  # of one variant
        return among_all(deviation, trained, len(trained), np.float32)

    def _features(self, X: ArrayLike) -> NDArray[np.floating]:
        check_is_fitted(self)
        return validate_data(self, X, dtype=(np.float64, np.float32), reset=False)

    def _like_y(self, values: NDArray) -> Any:
        """Values (..., V) without the last axis if y had none."""
        return self._predictor.like_y(values)

    def _parameters(self) -> Parameters:
        return checked(self.get_params(deep=False))
