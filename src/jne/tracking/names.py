"""The names of metrics and parameters that MLflow accepts."""

import hashlib
import posixpath
import re

_LENGTH = 250  # MLflow's limit
_UNACCEPTED = re.compile(r"[^\w\-.: /]")


def metric_name(name: str) -> str:
    """The name of a metric, SECTION/NAME, or of a parameter, if MLflow accepts it; else another.

    MLflow accepts letters, digits and `_-.: /`, but no path such as `a//b` or `a/../b`, and at most
    250 characters. All others become `_`, and a digest of NAME is added: two names never become the
    same, and an ROI has one name in all sections.
    """
    is_plain_path = posixpath.normpath(name) == name != "." and not name.startswith(("/", ".."))
    if is_plain_path and not _UNACCEPTED.search(name) and len(name) <= _LENGTH:
        return name
    section, slash, rest = name.partition("/")
    if not (slash and section.isidentifier() and len(section) <= 50):
        section, slash, rest = "", "", name
    cleaned = _UNACCEPTED.sub("_", rest).replace("/", "_").lstrip(".")[:150]
    return f"{section}{slash}{cleaned}-{hashlib.sha256(rest.encode()).hexdigest()[:8]}"
