"""The mean of a measure over subjects, each of whom was measured with an error of its own."""

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.meta_analysis import combine_effects

_NO_ERROR = 1e-6  # of the largest value


def random_effects_mean(
    values: NDArray[np.float64], errors: NDArray[np.float64]
) -> tuple[float, float, float]:
    """The mean of the population that subjects come from, and the ends of its 95 % interval.

    A subject weighs 1 / (error² + t²), with t² the variance between subjects by Paule & Mandel
    (1982): all weigh the same where subjects differ by much more than their errors. The interval is
    Hartung & Knapp's (2001), with Student's t of S - 1 degrees of freedom, and no narrower than
    errors and t² allow (Knapp & Hartung 2003): few subjects may be alike by chance.

    Parameters
    ----------
    values : (S,) array
    errors : (S,) array
        Standard errors, in the unit of the values. All subjects weigh the same where one is 0, as
        that of a share is where the encoder is linear.

    Returns
    -------
    mean, low, high : float
        NaN of no subject; the ends are NaN of a single one.
    """
    if len(values) < 2:
        return float(values[0]) if len(values) else np.nan, np.nan, np.nan
    if not (errors > 0).all():
        errors = np.full_like(errors, _NO_ERROR * (np.abs(values).max() or 1.0))
    with np.errstate(divide="ignore"):  # of values that are all equal
        combined = combine_effects(values, np.square(errors), method_re="pm", use_t=True)
    _, plain, _, adjusted = combined.conf_int()
    low, high = (plain, adjusted)[int(np.ptp(adjusted) > np.ptp(plain))]
    return float(combined.mean_effect_re), float(low), float(high)
