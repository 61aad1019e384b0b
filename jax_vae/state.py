"""The training state, to and from canonical arrays. Twin: torch_vae/state.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_common import randomness
from vae_common.config import Config
from vae_common.data.batches import require_resident
from vae_common.runs.checkpoints import AVERAGE, FIRST, SECOND, STEP, check_state, part_of, weights_of

from .device import Array, precision, to_numpy
from .meshes import copied, parameter_placement, placement_for, put, whole
from .models import Autoencoder, create_model, empty_model
from .parameters import load_arrays, parameter_shapes, to_arrays


@partial(
    jax.tree_util.register_dataclass, data_fields=["model", "optimizer", "average"], meta_fields=["config", "seeds"]
)
@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config = field(metadata={"static": True})
    average: Any = None
    """The model with the moving average of the weights, if the config keeps one."""
    seeds: tuple[int, ...] = field(default=(), metadata={"static": True})
    """Where given, several experiments at once: every array has a leading axis of seeds (see ensembles.py)."""

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(np.ravel(to_numpy(update_count(self)))[0])

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
        model = load_arrays(model, biased, config.training.dtype, parameter_placement(config))
    with precision(config.training.precision):
        average = copied(model) if config.optimizer.average else None
        return State(model, _moments(config, model), config, average)


def update_count(state: State) -> Array:
    """Updates so far, a scalar array on the device (of a stacked state one for each seed, all equal)."""
    return state.optimizer.count


def lost_part(state: State) -> str | None:
    """What of a state is not finite: its `weights`, `first moments`, `second moments` or `averaged weights`; or None.

    An infinite second moment shows in no loss: its parameter merely stands still.
    """
    optimizer = state.optimizer
    parts = {"weights": state.model, "first moments": optimizer.mu, "second moments": optimizer.nu}
    if state.average is not None:
        parts["averaged weights"] = state.average
    with precision(state.config.training.precision):
        finite = to_numpy(whole(_all_finite(list(parts.values()))))
    return next((name for name, found in zip(parts, finite) if not found), None)


def state_to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as a checkpoint's canonical arrays: weights, both moments, step."""
    parts = {FIRST: state.optimizer.mu, SECOND: state.optimizer.nu}
    if state.average is not None:
        parts[AVERAGE] = state.average
    arrays = to_arrays(state.model) | {STEP: np.array(state.step, np.int64)}
    for prefix, part in parts.items():
        arrays |= {prefix + name: array for name, array in to_arrays(part).items()}
    return arrays


def state_from_arrays(config: Config, arrays: Mapping[str, np.ndarray]) -> State:
    """The inverse of `state_to_arrays`, whichever half wrote them; InputError lists what does not fit."""
    dtype, placement = config.training.dtype, parameter_placement(config)
    with precision(dtype):
        model = empty_model(config)
        check_state(parameter_shapes(model), arrays, dtype, bool(config.optimizer.average))
        model = load_arrays(model, weights_of(arrays), dtype, placement)
        first = load_arrays(model, part_of(arrays, FIRST), dtype, placement)
        second = load_arrays(model, part_of(arrays, SECOND), dtype, placement)
        optimizer = optax.ScaleByAdamState(put(arrays[STEP].astype(np.int32), placement_for(config)), first, second)
        average = load_arrays(model, part_of(arrays, AVERAGE), dtype, placement) if config.optimizer.average else None
        return State(model, optimizer, config, average)


def _moments(config, model):
    """Adam's state before the first step."""
    dtype, placement, shapes = config.training.dtype, parameter_placement(config), parameter_shapes(model)
    parts = [
        load_arrays(model, {name: np.full(shape, start, dtype) for name, shape in shapes.items()}, dtype, placement)
        for start in (0.0, config.optimizer.second_moment_start)
    ]
    return optax.ScaleByAdamState(put(np.zeros((), np.int32), placement_for(config)), *parts)


@jax.jit
def _all_finite(parts):
    return jnp.stack([jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(part)]).all() for part in parts])
