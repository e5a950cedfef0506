"""The one exception that means: the input is at fault, and the message says what to change."""


class InputError(ValueError):
    """Bad input or configuration, told in one sentence that names the config key to change."""
