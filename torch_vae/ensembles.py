"""Several seeds of one experiment in one program. Twin: jax_vae/ensembles.py.

A stacked state has a leading axis of seeds on every array. `fit`, `train_epoch` and `compile_epoch` take it
as they take a single one; each seed gets what its own run would give it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from vae_common.config import Config
from vae_common.config.experiment import require_stackable
from vae_common.errors import require
from vae_common.randomness import Draws

from .batches import epoch_draws
from .device import precision
from .distributed import devices
from .models import empty_model
from .optimizers import adam
from .state import State

MOMENTS = ("exp_avg", "exp_avg_sq")


def stack_states(states: Sequence[State]) -> State:
    """One state of many, which are not consumed; InputError where they differ in more than their seed."""
    require_stackable([state.config for state in states], [state.step for state in states])
    require(devices() == 1, "states", f"{len(states)} seeds on {devices()} devices", "one device: a seed at a time")
    first, seeds = states[0].config, tuple(state.config.seed for state in states)
    with precision(first.training.precision):
        model = _stacked([state.model for state in states], first)
        optimizer = adam(model, first)
        for parameter, *own in zip(model.parameters(), *(state.model.parameters() for state in states)):
            moments = [state.optimizer.state[member] for state, member in zip(states, own)]
            stacked = {name: torch.stack([of[name] for of in moments]) for name in MOMENTS}
            optimizer.state[parameter] = stacked | {"step": moments[0]["step"].clone()}
        average = None if states[0].average is None else _stacked([state.average for state in states], first)
        return State(model, optimizer, first, average, seeds)


def unstack_states(state: State) -> list[State]:
    """The states of a stacked one, in the order of its seeds, each on its own; it is not consumed."""
    members = []
    with precision(state.config.training.precision):
        for place, config in enumerate(seed_configs(state)):
            model = _member(state.model, place, config)
            optimizer = adam(model, config)
            for parameter, stacked in zip(model.parameters(), state.model.parameters()):
                moments = state.optimizer.state[stacked]
                own = {name: moments[name][place].clone() for name in MOMENTS}
                optimizer.state[parameter] = own | {"step": moments["step"].clone()}
            average = None if state.average is None else _member(state.average, place, config)
            members.append(State(model, optimizer, config, average))
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
        return Draws._make(None if each[0] is None else torch.stack(each, 1) for each in zip(*draws))


def seed_configs(state: State) -> list[Config]:
    """The config of each seed of a stacked state."""
    return [dataclasses.replace(state.config, seed=seed) for seed in state.seeds]


def _stacked(models, config):
    return _with_parameters([torch.stack(same) for same in zip(*(model.parameters() for model in models))], config)


def _member(model, place, config):
    return _with_parameters([parameter[place].clone() for parameter in model.parameters()], config)


def _with_parameters(tensors, config):
    """The config's model with these tensors in its layers, in the order of its parameters."""
    model = empty_model(config)
    names = [name for name, _ in model.named_parameters()]
    for name, tensor in zip(names, tensors):
        layer, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(layer), attribute, torch.nn.Parameter(tensor.detach()))
    return model
