"""Several seeds of one experiment in one program. Twin: jax_vae/parallel.py.

A stacked state has a leading axis of seeds on every array. `fit`, `train_epoch` and `compile_epoch` take it
as they take a single one; each seed gets what its own run would give it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from vae_common.configs import Config, require_stackable
from vae_common.randomness import Draws

from .models import empty_model
from .training import State, _adam, epoch_draws


def stack_states(states: Sequence[State]) -> State:
    """One state of many, which are not consumed; InputError where they differ in more than their seed."""
    require_stackable([state.config for state in states], [state.step for state in states])
    first, seeds = states[0].config, tuple(state.config.seed for state in states)
    each = [[parameter.detach() for parameter in state.model.parameters()] for state in states]
    stacked = _with_parameters(states[0], [torch.stack(same) for same in zip(*each)], first)
    for place, parameter in enumerate(stacked.model.parameters()):
        moments = [state.optimizer.state.get(list(state.model.parameters())[place]) for state in states]
        if moments[0]:
            own = {name: torch.stack([of[name] for of in moments]) for name in ("exp_avg", "exp_avg_sq")}
            stacked.optimizer.state[parameter] = own | {"step": moments[0]["step"].clone()}
    return dataclasses.replace(stacked, seeds=seeds)


def unstack_states(state: State) -> list[State]:
    """The states of a stacked one, in the order of its seeds, each on its own; it is not consumed."""
    members = []
    for place, config in enumerate(seed_configs(state)):
        tensors = [parameter.detach()[place].clone() for parameter in state.model.parameters()]
        member = _with_parameters(state, tensors, config)
        for parameter, stacked in zip(member.model.parameters(), state.model.parameters()):
            if moments := state.optimizer.state.get(stacked):
                own = {name: moments[name][place].clone() for name in ("exp_avg", "exp_avg_sq")}
                member.optimizer.state[parameter] = own | {"step": moments["step"].clone()}
        members.append(member)
    return members


def state_draws(state: State, epoch: int, images: int) -> Draws:
    """`epoch_draws` for a state; of a stacked one every array has its axis of seeds after that of steps."""
    if not state.seeds:
        return epoch_draws(state.config, epoch, images)
    draws = [epoch_draws(config, epoch, images) for config in seed_configs(state)]
    return Draws._make(None if each[0] is None else torch.stack(each, 1) for each in zip(*draws))


def seed_configs(state: State) -> list[Config]:
    """The config of each seed of a stacked state."""
    return [dataclasses.replace(state.config, seed=seed) for seed in state.seeds]


def _with_parameters(state, tensors, config):
    """A state whose model is this one's with other tensors in its layers, and whose moments are yet to be put."""
    model = empty_model(config)
    names = [name for name, _ in state.model.named_parameters()]
    for name, tensor in zip(names, tensors):
        layer, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(layer), attribute, torch.nn.Parameter(tensor))
    return State(model, _adam(model, config), config)
