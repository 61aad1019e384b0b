"""How an epoch's steps are run: as one program, or one by one. Twin: torch_vae/execution.py.

The state is consumed, as `train_step` consumes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from vae_common.contracts import Terms, map_arrays
from vae_common.data.batches import require_epoch
from vae_common.randomness import Draws

from .batches import draws_at, made, prepare_images
from .compiling import compiler_options
from .device import Array, device_for, execution_for, precision
from .distributed import taken
from .state import State
from .step import one_step

EpochProgram = Callable[..., tuple[State, Terms]]
"""(state, images, draws[, labels]), as `train_epoch`."""


def train_epoch(state: State, images: Array, draws: Draws, labels: Array | None = None) -> tuple[State, Terms]:
    """One pass over resident images, as the config's `execution` says: one scan over its steps, unless `eager`.

    Args:
        state: consumed.
        images: uint8, or float32 in [0, 1], on the device, (N, height, width, channels), from `place_images`.
        draws: the epoch's order, noise and thresholds, from `epoch_draws`.
        labels: int32 on the device, (N,), where the model is given classes.

    Returns:
        The next state, and every step's terms, (steps,) each (of a stacked state (steps, seeds)), the mean per image.
    """
    require_epoch(state.config, len(state.seeds), images, draws, labels)
    with precision(state.config.training.precision):
        return _program(state)(state, images, draws, labels)


def compile_epoch(state: State, images: Array, draws: Draws, labels: Array | None = None) -> EpochProgram:
    """`train_epoch` for arguments of these shapes, compiled ahead of time; nothing is run or consumed.

    With `execution` other than `eager` any argument may be made of `jax.ShapeDtypeStruct`, and the result has the
    `jax.stages.Compiled` as its `compiled`.
    """
    require_epoch(state.config, len(state.seeds), images, draws, labels)
    program, given = _program(state), [] if labels is None else [labels]
    if program is _eager_epoch:
        return train_epoch  # its step is compiled where it is first called
    arithmetic = state.config.training.precision
    with precision(arithmetic):
        compiled = program.lower(state, images, draws, *given).compile(compiler_options=compiler_options(state.config))

    def run(*arguments):
        with precision(arithmetic):
            return compiled(*arguments)

    run.compiled = compiled  # type: ignore[attr-defined]
    return run


def batch_step(state: State, images: Array, draw: Draws, labels: Array | None = None) -> tuple[State, Terms]:
    """One step on the batch that these draws, one entry of an epoch's, take from the resident images."""

    def step(state, draw):
        draw = made(state.config, draw)
        batch = taken(state.config, images, draw.order).reshape(-1, *state.config.image_shape)
        batch = prepare_images(batch, draw.thresholds, state.config.training.dtype)
        return one_step(state, batch, draw.noise, None if labels is None else taken(state.config, labels, draw.order))

    return jax.vmap(step)(state, draw) if state.seeds else step(state, draw)


def epoch_steps(state: State, images: Array, draws: Draws, labels: Array | None = None) -> tuple[State, Terms]:
    """An epoch as one scan over its steps."""
    # Rows, and that before the scan: a TPU would lay out all small images anew at every step.
    rows = jax.lax.optimization_barrier(images.reshape(len(images), -1))
    return jax.lax.scan(lambda state, draw: batch_step(state, rows, draw, labels), state, draws)


def _seeds_in_turn(state, images, draws, labels=None):
    """The epoch of a stacked state, seed after seed: on a CPU faster, as one seed's weights stay in the cache."""

    def epoch(place):
        member, own = jax.tree.map(lambda a: a[place], state), jax.tree.map(lambda a: a[:, place], draws)
        member, terms = epoch_steps(replace(member, seeds=()), images, own, labels)
        return replace(member, seeds=state.seeds), terms

    state, terms = jax.lax.map(epoch, jnp.arange(len(state.seeds)))
    return state, jax.tree.map(jnp.transpose, terms)


def _eager_epoch(state, images, draws, labels=None):
    steps = []
    for step in range(len(draws.order)):
        state, means = jitted_batch_step(state, images, draws_at(draws, step), labels)
        steps.append(means)
    return state, map_arrays(lambda *each: jnp.stack(each), *steps)


def _program(state):
    """What runs an epoch of this state."""
    if execution_for(state.config) == "eager":
        return _eager_epoch
    in_turn = state.seeds and device_for(state.config).platform == "cpu"
    return _jitted_seeds_in_turn if in_turn else jitted_epoch


jitted_batch_step = jax.jit(batch_step, donate_argnums=0)
jitted_epoch = jax.jit(epoch_steps, donate_argnums=0)
_jitted_seeds_in_turn = jax.jit(_seeds_in_turn, donate_argnums=0)
