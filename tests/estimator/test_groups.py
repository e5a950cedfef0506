"""`JNERegressor.fit(..., groups=)`: groups in one piece, also through scikit-learn's routing."""

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import GroupKFold, cross_validate

from jne import JNERegressor
from jne.errors import InputError

SMALL = {"hidden_width": 8, "n_hidden": 1, "max_epochs": 2, "weight_decay": 0.0}
GROUPS = np.array([f"film {k}" for k in np.repeat(np.arange(15), 6)])


@pytest.fixture(scope="module")
def arrays():
    x, y = np.random.default_rng(0).standard_normal((2, 90, 4))
    return x, y


def test_whole_groups_validate(arrays):
    model = JNERegressor(**SMALL, validation_fraction=0.2).fit(*arrays, groups=GROUPS)
    validates = np.isin(np.arange(90), model.validation_)
    assert len(model.validation_) == 18
    assert not set(GROUPS[validates]) & set(GROUPS[~validates])
    assert np.isfinite(model.evidence(*arrays).slope_error).any()


def test_groups_reach_the_folds_that_choose_penalties(arrays, monkeypatch):
    cut = []

    def spy(self, rows, n_folds, seed=0):
        cut.append(splits := original(self, rows, n_folds, seed))
        for train, out in splits:
            assert not set(self.groups[rows[train]]) & set(self.groups[rows[out]])
        return splits

    from jne.data.folds import Belonging

    original = Belonging.folds
    monkeypatch.setattr(Belonging, "folds", spy)
    JNERegressor(**SMALL).fit(*arrays, groups=GROUPS)
    assert len(cut) == 2  # validation, and ridge regression's penalties
    assert len(cut[1]) == 5


def test_routing(arrays):
    with sklearn.config_context(enable_metadata_routing=True):
        model = JNERegressor(**SMALL).set_fit_request(groups=True)
        found = cross_validate(
            model, *arrays, cv=GroupKFold(3), params={"groups": GROUPS}, return_estimator=True,
            return_indices=True,
        )  # fmt: skip
    for fitted, train in zip(found["estimator"], found["indices"]["train"], strict=True):
        groups = GROUPS[train]
        validates = np.isin(np.arange(len(train)), fitted.validation_)
        assert not set(groups[validates]) & set(groups[~validates])


def test_what_is_refused(arrays):
    mask = np.arange(90) < 20
    for settings, sentence in (
        ({"groups": GROUPS[:5]}, "groups: must have a value for each row"),
        ({"groups": GROUPS, "validation": mask}, "validation: marks some stimuli of a group"),
        ({"groups": np.zeros(90)}, "groups: 90 stimuli of one group"),
    ):
        with pytest.raises(InputError, match=sentence):
            JNERegressor(**SMALL).fit(*arrays, **settings)
