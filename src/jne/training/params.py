"""The parameters of a training run in MLflow, and the tags by which evaluate.py finds it."""

from collections.abc import Mapping
from typing import Any

from jne.data.contents import combined
from jne.stages import digest_of
from jne.tracking import Match
from jne.training.config import TrainConfig


def short_params(config: TrainConfig) -> dict[str, object]:
    """What a run is usually told apart by, under short names: lr, encoder."""
    encoder, optimizer = config.encoder, config.optimizer
    linear = encoder.get("placement", config.placement) == "none"
    return {
        "subject": config.subject,
        "data": config.data["name"],
        "features": config.features["name"],
        "layer": "-" if config.layer is None else config.layer,
        "encoder": encoder.get("label", encoder["_target_"]).split("_")[0],
        "activation": "none" if linear else config.activation,
        "placement": "none" if linear else config.placement,
        "hidden_width": encoder.get("hidden_width", "-"),
        "n_hidden": encoder.get("n_hidden", "-"),
        "bias": encoder.get("bias", "-"),
        "optimizer": optimizer["_target_"].rsplit(".", 1)[-1],
        "lr": optimizer.get("lr", "-"),
        "batch_size": config.trainer.batch_size or "full",
        "patience": config.trainer.patience,
        "readout": config.readout,
        "control": config.control.kind,
        "seed": config.seed,
    }


def all_params(config: TrainConfig) -> dict[str, object]:
    """Every key of the config that the results depend on, as on the command line: optimizer.lr."""
    settings = config.determinants()
    del settings["name"]  # the run's own name
    settings["data"].pop("image_features", None)  # repeats `features`
    return _flat(settings, "")


def match_of(config: TrainConfig, contents: Mapping[str, str], linear: bool) -> Match:
    """What evaluate.py finds the run by.

    contents: as `contents_of` returns it. linear: whether the Jacobian is the same everywhere.
    """
    params = all_params(config) | short_params(config)
    role = "linear" if linear else "nonlinear"
    if config.control.kind != "none" or params["encoder"] == "ridge":  # every run has ridge
        role = "other"
    settings = {
        name: value
        for name, value in params.items()
        if name != "seed" and name.split(".")[0] != "control"
    }
    data_set = config.data["name"]
    return Match(
        role=role,
        data_set=digest_of(data_set),
        subject=digest_of([data_set, config.subject]),
        settings=digest_of(settings),
        seed=str(config.seed),
        contents=combined(contents),
    )


def _flat(settings: dict[str, Any], prefix: str) -> dict[str, object]:
    """The settings without nesting, by their keys in the form SECTION.KEY."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        below = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if below else {f"{prefix}{key}": value}
    return flat
