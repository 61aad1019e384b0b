"""How an epoch's steps are run: eagerly, compiled, or as a CUDA graph. Twin: jax_vae/execution.py.

The state is consumed, as `train_step` consumes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from vae_common.contracts import Terms, map_arrays
from vae_common.data.batches import require_epoch
from vae_common.randomness import Draws

from . import graphs
from .batches import draws_at, made, prepare_images
from .device import Array, execution_for, precision
from .distributed import devices, taken
from .objectives import batch_loss
from .state import State, update_count
from .step import batch_gradients, updated

EpochProgram = Callable[..., tuple[State, Terms]]
"""(state, images, draws[, labels]), as `train_epoch`."""


def train_epoch(state: State, images: Array, draws: Draws, labels: Array | None = None) -> tuple[State, Terms]:
    """One pass over resident images, as the config's `execution` says; nothing is read back between the steps.

    Args:
        state: consumed.
        images: uint8, or float32 in [0, 1], on the device, (N, height, width, channels), from `place_images`.
        draws: the epoch's order, noise and thresholds, from `epoch_draws`.
        labels: int32 on the device, (N,), where the model is given classes.

    Returns:
        The next state, and every step's terms, (steps,) each (of a stacked state (steps, seeds)), the mean per image.
    """
    require_epoch(state.config, len(state.seeds), images, draws, labels)
    return _program(state, images, draws, labels)(state, images, draws, labels)


def compile_epoch(state: State, images: Array, draws: Draws, labels: Array | None = None) -> EpochProgram:
    """`train_epoch` for arguments of these shapes, compiled ahead of time; nothing is run or consumed.

    A graph is captured for this very state and these images: keep the program, and give it no others.
    """
    require_epoch(state.config, len(state.seeds), images, draws, labels)
    if _execution(state.config) == "compile":  # what is captured is compiled as it is warmed up
        with precision(state.config.training.precision):
            _gradient_function(state)(state, images, draws_at(draws, 0), labels)  # compiles; the gradients are let go
    return _program(state, images, draws, labels)


def _execution(config):
    """How steps run here: several processes take them eagerly."""
    return execution_for(config) if devices() == 1 else "eager"


def _program(state, images, draws, labels):
    """What runs an epoch of this state."""
    if _execution(state.config) in ("graph", "compiled graph"):
        return _captured_epoch(state, images, draws, labels)

    def program(state, images, draws, labels=None):
        with precision(state.config.training.precision):
            return epoch_steps(state, images, draws, labels, _gradient_function(state))

    return program


def _gradient_function(state):
    """The gradients and mean terms on the batch that an epoch's draws, at one step, take from the images."""
    compiled = _execution(state.config) in ("compile", "compiled graph")
    if compiled or state.seeds:
        function = _seeds_gradients if state.seeds else _batch_gradients
        function = _compiled(function) if compiled else function
        loss = _Loss(state.model)
        parameters = {f"model.{name}": parameter.detach() for name, parameter in state.model.named_parameters()}

        def functional(state, images, draw, labels):
            computed, means = function(parameters, loss, state.config, images, draw, labels, update_count(state))
            return {name.removeprefix("model."): gradient for name, gradient in computed.items()}, means

        return functional

    def eager(state, images, draw, labels):
        draw = made(state.config, draw)
        given = taken(state.config, images, draw.order)
        batch = prepare_images(given, draw.thresholds, getattr(torch, state.config.training.dtype))
        own = None if labels is None else taken(state.config, labels, draw.order)
        return batch_gradients(state, batch, draw.noise, own)

    return eager


class _Loss(torch.nn.Module):
    """`batch_loss` as a module's call, which `functional_call` wants."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, *arguments: Any) -> Any:
        return batch_loss(self.model, *arguments)


def _batch_gradients(parameters, loss, config, images, draw, labels, step):
    draw = made(config, draw)
    batch = prepare_images(taken(config, images, draw.order), draw.thresholds, getattr(torch, config.training.dtype))
    arguments = config, batch, draw.noise, None if labels is None else taken(config, labels, draw.order), step

    def of_parameters(parameters):
        return torch.func.functional_call(loss, parameters, arguments)

    return torch.func.grad(of_parameters, has_aux=True)(parameters)


def _seeds_gradients(parameters, loss, config, images, draw, labels, step):
    own = Draws(0, 0, None if draw.thresholds is None else 0)
    return torch.func.vmap(_batch_gradients, in_dims=(0, None, None, None, own, None, None))(
        parameters, loss, config, images, draw, labels, step
    )


@cache
def _compiled(function):
    torch._dynamo.config.recompile_limit = 64  # a process may well train more than eight shapes and configs
    return torch.compile(function, fullgraph=True, dynamic=False)


def batch_step(state: State, images: Array, draw: Draws, labels: Array | None, gradients: Any) -> tuple[State, Terms]:
    """One step on the batch that these draws, one entry of an epoch's, take from the resident images."""
    computed, means = gradients(state, images, draw, labels)
    return updated(state, computed), means


def epoch_steps(state: State, images: Array, draws: Draws, labels: Array | None, gradients: Any) -> tuple[State, Terms]:
    """An epoch step by step; nothing is read back between them."""
    steps = []
    for step in range(len(draws.order)):
        state, means = batch_step(state, images, draws_at(draws, step), labels, gradients)
        steps.append(means)
    return state, map_arrays(lambda *each: torch.stack(each), *steps)


def _captured_epoch(state, images, draws, labels):
    """Gather, forward, backward and Adam as one CUDA graph, replayed for each step of an epoch."""
    gradients, resident = _gradient_function(state), images
    own = Draws._make(None if draw is None else draw.clone() for draw in draws)
    shape = (len(draws.order), len(state.seeds)) if state.seeds else (len(draws.order),)
    names = state.config.term_names
    means = torch.zeros((len(names), *shape), dtype=draws.noise.dtype, device=images.device)
    place = torch.zeros(1, dtype=torch.long, device=images.device)

    def step():
        draw = Draws._make(None if draw is None else draw.index_select(0, place)[0] for draw in own)
        _, terms = batch_step(state, images, draw, labels, gradients)
        found = terms.named()
        means.index_copy_(1, place, torch.stack([found[name] for name in names]).unsqueeze(1))
        place.add_(1).remainder_(len(own.order))

    with precision(state.config.training.precision), _kept(state):
        replay = graphs.capture(step)

    def program(given, images, draws, labels=None):
        if given.model is not state.model or images is not resident or draws.order.shape != own.order.shape:
            raise ValueError("a captured epoch belongs to one state and its images; compile_epoch makes another")
        for buffer, draw in zip(own, draws):
            if draw is not None:
                buffer.copy_(draw)
        place.zero_()
        for _ in range(len(draws.order)):
            replay()
        return given, Terms.of(dict(zip(names, means.clone())))

    return program


@contextlib.contextmanager
def _kept(state):
    """Puts weights, moments and step back in place after its block, which may take steps."""
    averages = [] if state.average is None else list(state.average.parameters())
    weights = [(parameter, parameter.detach().clone()) for parameter in (*state.model.parameters(), *averages)]
    moments = {p: {k: v.clone() for k, v in of.items()} for p, of in state.optimizer.state.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in weights:
                parameter.copy_(value)
            for parameter, of in moments.items():
                for name, tensor in of.items():
                    state.optimizer.state[parameter][name].copy_(tensor)
