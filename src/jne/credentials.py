"""Addresses of MLflow stores without the user and the password in them.

These go to the environment of this process instead, where MLflow, the drivers of PostgreSQL and the
processes that it starts look for them. So what is shown, recorded or passed on does not have them.
"""

import os
import re
from urllib.parse import parse_qsl, unquote, urlencode

_VARIABLES = {
    r"https?": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    r"postgresql(\+psycopg2?)?": ("PGUSER", "PGPASSWORD"),
}
_STORE = "JNE_STORE"  # the whole address of the store that they are for

_CREDENTIALS = re.compile(
    r"((?:mysql|mssql|postgres(?:ql)?)(?:\+\w+)?://)\S*@"  # whose passwords may hold a slash
    r"|(\b[a-z][\w+.-]*://)[^\s/?#]*@"
    r"|([?&]password=)[^\s&'\"]*"
)


def hide_credentials(text: str) -> str:
    """A text without `user:password@` in the addresses in it: what is shown, logged or recorded."""
    return _CREDENTIALS.sub(lambda match: next(filter(None, match.groups())), text)


def without_credentials(uri: str) -> str:
    """The address of a store without user and password, which go to the environment."""
    bare, *given = _parts(uri)
    if any(given):
        _forget()
        os.environ[_STORE] = uri
        os.environ |= {name: v for name, v in zip(_variables(uri), given, strict=False) if v}
    return bare


def with_credentials(bare: str) -> str:
    """The address to connect to, of a store whose address `without_credentials` made.

    User and password of another store leave the environment: they are for that one alone.
    """
    whole = os.environ.get(_STORE, "")
    if not whole or _parts(whole)[0] == bare:
        return whole if whole and not _variables(whole) else bare
    _forget()
    return bare


def _forget() -> None:
    for name in (*_variables(os.environ.get(_STORE, "")), _STORE):
        os.environ.pop(name, None)


def _variables(uri: str) -> tuple[str, ...]:
    """Where the driver of a store looks for user and password; nowhere by default."""
    named = (names for scheme, names in _VARIABLES.items() if re.match(f"{scheme}://", uri))
    return next(named, ())


def from_environment(bare: str) -> None:
    """Take user and password from MLFLOW_TRACKING_URI, if that is the address of the same store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if _parts(uri)[0] == bare:
        without_credentials(uri)


def _parts(uri: str) -> tuple[str, str, str]:
    """An address without user and password, and these, decoded."""
    scheme, separator, rest = uri.partition("://")
    # A password in the address of a database may hold a slash, by SQLAlchemy's rules.
    end = re.search(r"[/?#]" if scheme.startswith("http") else r"\?", rest)
    place, query = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    named, _, host = place.rpartition("@")
    if not separator or not re.match(r"[^:/]*(:|$)", named):
        named, host = "", place
    user, _, password = map(unquote, named.partition(":"))
    given = dict(parse_qsl(query.removeprefix("?")))
    if "password" in given:  # as libpq takes it
        password, user = given.pop("password"), given.pop("user", user)
        query = f"?{urlencode(given)}" if given else ""
    return f"{scheme}{separator}{host}{query}", user, password
