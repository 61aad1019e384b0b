"""The training state, to and from canonical arrays. Twin: jax_vae/state.py."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vae_common import randomness
from vae_common.config import Config
from vae_common.data.batches import require_resident
from vae_common.runs.checkpoints import AVERAGE, FIRST, SECOND, STEP, check_state, part_of, weights_of

from .device import Array, device_for, precision, to_device, to_numpy
from .distributed import agree
from .engines import as_parameter, own, shard, whole
from .models import Autoencoder, create_model, empty_model
from .optimizers import adam
from .parameters import load_arrays, parameter_shapes, to_arrays


@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config
    average: Any = None
    """The model with the moving average of the weights, if the config keeps one."""
    seeds: tuple[int, ...] = ()
    """Where given, several experiments at once: every array has a leading axis of seeds (see ensembles.py)."""

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(update_count(self))

    @property
    def evaluated(self) -> Autoencoder:
        """The model that evaluations use: the averaged one, where there is one."""
        return self.model if self.average is None else self.average


def create_state(config: Config, images: np.ndarray | None = None) -> State:
    """The experiment before its first step, on its device; equal in both halves.

    `images` are the training images; only an `output_bias` of `data_mean` reads them, and cannot do without.
    """
    model = create_model(config)
    if config.network.output_bias == "data_mean":
        seen = None if images is None else require_resident(config, images)
        biased = randomness.with_mean_bias(to_arrays(model), seen)
        model = load_arrays(model, biased, config.training.dtype, device_for(config))
    with precision(config.training.precision):
        average = shard(copy.deepcopy(model), config) if config.optimizer.average else None
        model = shard(model, config)
        return State(model, adam(model, config), config, average)


def update_count(state: State) -> Array:
    """Updates so far, a scalar tensor on the device (of a stacked state, too: its seeds take their steps together)."""
    return next(iter(state.optimizer.state.values()))["step"]


def lost_part(state: State) -> str | None:
    """What of a state is not finite: its `weights`, `first moments`, `second moments` or `averaged weights`; or None.

    An infinite second moment shows in no loss: its parameter merely stands still.
    """
    moments = [state.optimizer.state[parameter] for parameter in state.model.parameters()]
    parts = {
        "weights": list(state.model.parameters()),
        "first moments": [of["exp_avg"] for of in moments],
        "second moments": [of["exp_avg_sq"] for of in moments],
    }
    if state.average is not None:
        parts["averaged weights"] = list(state.average.parameters())
    with precision(state.config.training.precision):
        finite = to_numpy(_all_finite([[own(leaf) for leaf in part] for part in parts.values()]))
    lost = next((name for name, found in zip(parts, finite) if not found), None)
    return next(iter(agree(lost)), None)


def state_to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as a checkpoint's canonical arrays: weights, both moments, step."""
    arrays = to_arrays(state.model) | {STEP: np.array(state.step, np.int64)}
    for name, parameter in state.model.named_parameters():
        moments = state.optimizer.state[parameter]
        arrays[FIRST + name] = to_numpy(whole(moments["exp_avg"]))
        arrays[SECOND + name] = to_numpy(whole(moments["exp_avg_sq"]))
    if state.average is not None:
        arrays |= {AVERAGE + name: array for name, array in to_arrays(state.average).items()}
    return arrays


def state_from_arrays(config: Config, arrays: Mapping[str, np.ndarray]) -> State:
    """The inverse of `state_to_arrays`, whichever half wrote them; InputError lists what does not fit."""
    dtype, device = config.training.dtype, device_for(config)
    with precision(dtype):
        model = empty_model(config)
        check_state(parameter_shapes(model), arrays, dtype, bool(config.optimizer.average))
        model = shard(load_arrays(model, weights_of(arrays), dtype, device), config)
        optimizer = adam(model, config)
        for name, parameter in model.named_parameters():
            step = torch.tensor(float(arrays[STEP]), dtype=torch.float32, device=device)
            kept = (to_device(arrays[part + name], device) for part in (FIRST, SECOND))
            first, second = (as_parameter(moment, parameter) for moment in kept)
            optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
        average = None
        if config.optimizer.average:
            average = shard(load_arrays(empty_model(config), part_of(arrays, AVERAGE), dtype, device), config)
        return State(model, optimizer, config, average)


@torch.no_grad()
def _all_finite(parts):
    return torch.stack([torch.stack([torch.isfinite(leaf).all() for leaf in part]).all() for part in parts])
