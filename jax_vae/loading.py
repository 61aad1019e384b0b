"""Opening what was trained: a run's folder becomes a model. Twin: torch_vae/loading.py."""

from __future__ import annotations

import os
from typing import NamedTuple

from vae_common.config import Config
from vae_common.runs import checkpoints

from .device import select_device
from .layers import Autoencoder
from .models import create_model
from .parameters import load_arrays


class Loaded(NamedTuple):
    """A trained model, and the experiment that it comes from."""

    model: Autoencoder
    config: Config


def load(folder: str | os.PathLike[str]) -> Loaded:
    """The model of a run's last checkpoint, whichever half trained it, on the device at hand.

    Its weights are those that evaluations use: their moving average where one was kept. InputError where the folder is
    no run's.
    """
    checkpoint = checkpoints.read_run(folder)
    config = checkpoint.here
    model = create_model(config)
    return Loaded(load_arrays(model, checkpoint.weights, config.training.dtype, select_device()), config)
