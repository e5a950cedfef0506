"""Hydra takes plugins from this namespace only; the sweeper itself is in jne.runs.halving."""

from jne.runs.halving import Halving


class HalvingSweeper(Halving):
    """hydra/sweeper=halving"""
