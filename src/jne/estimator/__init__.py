"""The package as an estimator of scikit-learn.

regressor   JNERegressor
parameters  its parameters, checked
rows        which rows validate
"""

from jne.estimator.regressor import JNERegressor

__all__ = ["JNERegressor"]
