"""Numbers and names in the sentences of a report."""

import pytest

from jne.evaluation.sections.base import first_names, p_text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "p < 0.001"), (9.99e-4, "p < 0.001"), (0.001, "p = 0.001"), (0.0049, "p = 0.005"),
     (0.01234, "p = 0.012"), (1.0, "p = 1.000")],
)  # fmt: skip
def test_a_p_has_three_digits_and_is_never_0(p, text):
    assert p_text(p) == text


def test_the_first_names_and_how_many_more():
    assert first_names(["V1", "V2"], 2) == "V1, V2"
    assert first_names(["V1", "V2", "V3", "V4"], 2) == "V1, V2 and 2 more"
