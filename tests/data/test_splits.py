"""How many stimuli each split gets."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from jne.data.splits import Count, Share, random_split
from jne.errors import InputError


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (Share, [0.01, 0.5, 0.99], [0.0, -0.1, 1.0, 1.2]),
    (Count, [1, 2, 10**6], [0, -1]),
])  # fmt: skip
def test_shares_are_parts_and_counts_at_least_one(kind, good, bad):
    adapter = TypeAdapter(kind)
    assert [adapter.validate_python(value) for value in good] == good
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


@pytest.mark.parametrize(
    ("n_val", "n_test", "expected"),
    [(0.2, 0.3, (10, 4, 6)), (3, 5, (12, 3, 5)), (0.26, 1, (14, 5, 1)), (10, 9, (1, 10, 9))],
)
def test_sizes_are_shares_or_numbers_and_the_draw_is_of_the_seed(n_val, n_test, expected):
    split = random_split(20, n_val, n_test, seed=4)
    assert tuple((split == name).sum() for name in ("train", "val", "test")) == expected
    order = np.random.default_rng(4).permutation(20)
    assert (split[order[: expected[2]]] == "test").all()
    assert (split[order[expected[2] : sum(expected[1:])]] == "val").all()
    np.testing.assert_array_equal(random_split(20, n_val, n_test, seed=4), split)
    assert (random_split(20, n_val, n_test, seed=5) != split).any()


def test_one_stimulus_must_be_left_to_train_on():
    with pytest.raises(InputError, match=r"take 10 \+ 10 of 20 stimuli and leave none"):
        random_split(20, 10, 0.5, seed=0)
