"""Names and colours in the figures of several studies."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito
_LABELS = {
    "relu": "ReLU",
    "leaky_relu": "Leaky ReLU",
    "gelu": "GELU",
    "swish": "Swish",
    "tanh": "tanh",
    "none": "none",
    "loc1": "Loc1",
    "loc2": "Loc2",
    "both": "both",
}


def label(name: str) -> str:
    """How figures write an activation or a placement; an unknown name stays as it is."""
    return _LABELS.get(name, name)
