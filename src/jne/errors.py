"""The one exception that means: the input is at fault, and the message says what to change."""

from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from jne.credentials import hide_credentials


class InputError(ValueError):
    """Bad input or configuration: which key is at fault, and what to change, in one sentence.

    As text: `KEY=VALUE: MESSAGE`, without passwords.

    Parameters
    ----------
    key : str
        The config key, such as data.n_val, or the argument of a function; empty where the message
        names a file and no key leads to it.
    message : str
        Begins after the key.
    value : object
        What the key holds, where the sentence repeats it.
    """

    def __init__(self, key: str, message: str, value: object = ...) -> None:
        super().__init__(key, message, value)  # all three, or it could not be pickled
        self.key, self.message, self.value = key, message, value

    def __str__(self) -> str:
        if not self.key:
            return hide_credentials(self.message)
        given = "" if self.value is ... else f"={self._as_written()}"
        return hide_credentials(f"{self.key}{given}: {self.message}")

    def _as_written(self) -> object:
        """The value as a config has it: null and true, not None and True, where the key is one."""
        if "." in self.key and (self.value is None or isinstance(self.value, bool)):
            return {None: "null", True: "true", False: "false"}[self.value]
        return self.value

    def at(self, key: str) -> "InputError":
        """The same complaint about another key: what a function calls an argument has a key."""
        return InputError(key, self.message, self.value)


@contextmanager
def keys_below(section: str, names: Container[str]) -> Iterator[None]:
    """Within this block, arguments with these names come from the config section `section`."""
    try:
        yield
    except InputError as error:
        if error.key not in names:
            raise
        raise error.at(f"{section}.{error.key}") from error


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean NAME?` with that of the names which is most like `name`; empty without."""
    close = get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
