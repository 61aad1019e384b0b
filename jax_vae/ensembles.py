"""Several seeds of one experiment in one program. Twin: torch_vae/ensembles.py.

A stacked state has a leading axis of seeds on every array. `fit`, `train_epoch` and `compile_epoch` take it
as they take a single one; each seed gets what its own run would give it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vae_common.config import Config
from vae_common.config.experiment import require_stackable
from vae_common.errors import require
from vae_common.randomness import Draws

from .batches import epoch_draws
from .device import precision
from .distributed import devices
from .state import State


def stack_states(states: Sequence[State]) -> State:
    """One state of many, which are not consumed; InputError where they differ in more than their seed."""
    require_stackable([state.config for state in states], [state.step for state in states])
    require(devices() == 1, "states", f"{len(states)} seeds on {devices()} devices", "one device: a seed at a time")
    first, seeds = states[0].config, tuple(state.config.seed for state in states)
    with precision(first.training.precision):
        alike = [dataclasses.replace(state, config=first) for state in states]
        return dataclasses.replace(jax.tree.map(lambda *leaves: jnp.stack(leaves), *alike), seeds=seeds)


def unstack_states(state: State) -> list[State]:
    """The states of a stacked one, in the order of its seeds, each on its own; it is not consumed."""
    members = []
    with precision(state.config.training.precision):
        for place, config in enumerate(seed_configs(state)):
            member = jax.tree.map(lambda leaf, place=place: jnp.copy(leaf[place]), state)
            members.append(dataclasses.replace(member, config=config, seeds=()))
    return members


def state_draws(state: State, epoch: int, images: int, drawn: Sequence[Draws | None] = (None,)) -> Draws:
    """`epoch_draws` for a state; of a stacked one every array has its axis of seeds after that of steps.

    `drawn` are those of each seed, where they have been made already.
    """
    if not state.seeds:
        return epoch_draws(state.config, epoch, images, drawn[0])
    made = drawn if len(drawn) == len(state.seeds) else [None] * len(state.seeds)
    draws = [epoch_draws(config, epoch, images, own) for config, own in zip(seed_configs(state), made)]
    with precision(state.config.training.precision):
        return jax.tree.map(lambda *each: jnp.stack(each, 1), *draws)


def seed_configs(state: State) -> list[Config]:
    """The config of each seed of a stacked state."""
    return [dataclasses.replace(state.config, seed=seed) for seed in state.seeds]
