"""Feature spaces: which columns of the features (N, D) belong to which, by name."""

from collections.abc import Mapping

from jne.errors import InputError


def check_spaces(spaces: Mapping[str, slice] | None, n_features: int) -> dict[str, slice]:
    """The spaces with plain bounds; none for None.

    Raises InputError unless they follow one another, from the first to the last of the features.
    """
    checked: dict[str, slice] = {}
    start = 0
    for name, columns in (spaces or {}).items():
        begin, stop, step = columns.indices(n_features)
        if begin != start or stop <= start or step != 1 or (columns.stop or 0) > n_features:
            raise InputError(
                "spaces",
                f"{name!r} must be a slice that begins at column {start} of the {n_features} "
                f"features, where the space before it ends, found {columns}",
            )
        checked[name] = slice(start, stop)
        start = stop
    if checked and start < n_features:
        raise InputError("spaces", f"must cover all {n_features} features, but end at {start}")
    return checked
