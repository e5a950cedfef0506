"""
An estimator for your own arrays
================================

:class:`jne.JNERegressor` is the whole of ``jne train`` behind scikit-learn's interface: features X
(N, D), responses y (N, V), and then ``fit``, ``predict``, ``score``, ``jne``. It works in
pipelines and searches.
"""

# %%
# Arrays
# ------
#
# A simulated recording: 30 neurons, 800 stimuli, 40 features. The share of a neuron's response that
# is not linear rises from 0 to 0.9.

import numpy as np

rng = np.random.default_rng(0)
n_stimuli, n_features, n_neurons = 800, 40, 30
X = rng.standard_normal((n_stimuli, n_features))
share = np.linspace(0, 0.9, n_neurons)  # (V,)


def projections():
    """Random projections of the features on each neuron, of unit variance, (N, V)."""
    return X @ rng.standard_normal((n_features, n_neurons)) / np.sqrt(n_features)


square = (projections() ** 2 - 1) / np.sqrt(2)
y = np.sqrt(1 - share) * projections() + np.sqrt(share) * square
y += 0.5 * rng.standard_normal(y.shape)

# %%
# Fit and measure
# ---------------
#
# Features and responses are standardised inside. ``fit`` sets a tenth of the stimuli aside to stop
# early; JNE is measured over stimuli that it has not seen.

from sklearn.model_selection import train_test_split

from jne import JNERegressor

X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=200, random_state=0)
model = JNERegressor(hidden_width=256, activation="gelu")
model.fit(X_train, y_train)
print(f"R² of the test stimuli {model.score(X_test, y_test):.2f}")
print(f"epochs {len(model.epochs_)}, the best {model.best_epoch_}")

# %%
# Beside ridge regression, as always
# ----------------------------------

from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))
ridge.fit(X_train, y_train)
r2 = {
    "JNERegressor": r2_score(y_test, model.predict(X_test), multioutput="raw_values"),
    "ridge regression": r2_score(y_test, ridge.predict(X_test), multioutput="raw_values"),
}

import matplotlib.pyplot as plt

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
for (name, values), colour in zip(r2.items(), ("#D55E00", "#0072B2"), strict=True):
    left.plot(share, values, ".", color=colour, label=name)
left.set(xlabel="nonlinear share of the response", ylabel="R²", ylim=(-0.2, 1))
left.legend(loc="lower left")
right.plot(share, model.jne(X_test), ".", color="#D55E00")
right.set(xlabel="nonlinear share of the response", ylabel="JNE", ylim=(0, None))

# %%
# JNE ranks the neurons by their nonlinear share, and needs no comparison of two models for it.
#
# In a search
# -----------
#
# All parameters are keys of ``jne train``, under the same names. Only the training stimuli choose.

from sklearn.model_selection import GridSearchCV

search = GridSearchCV(model, {"weight_decay": [0.0, 0.01]}, cv=2)
search.fit(X_train, y_train)
print(search.best_params_, f"R² {search.score(X_test, y_test):.2f}")
