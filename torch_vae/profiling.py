"""The operations of a training step, and the part of it that each belongs to. Twin: jax_vae/profiling.py."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from vae_common.config import Config
from vae_common.errors import InputError
from vae_common.profiles import BACKWARD, FORWARD, PARTS, Operation, Profile

from . import step
from .batches import draws_at, epoch_draws, made, prepare_images
from .device import Array, device_for, execution_for, precision, synchronize
from .state import State, create_state

WARM_UP = 2
"""Epochs before the one that is profiled."""
SCOPE = "part: "


def profile(config: Config, images: Array, folder: Path) -> Profile:
    """The operations of an epoch's steps on placed images (N, height, width, channels), as PyTorch's operators.

    An operation belongs to the part that it was called in, and in the backward pass to that of the operation whose
    gradient it is. Steps are eager: a compiled one does not say what it comes from.
    """
    if execution_for(config) == "compile":
        raise InputError("execution: received compile, which does not say what its kernels come from; profile eager")
    state, draws = create_state(config), epoch_draws(config, 0, len(images))
    steps = len(draws.order)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device_for(config).type == "cuda" else [])]
    with _scopes(state):
        for _ in range(WARM_UP):
            state = _epoch(state, images, draws)
        synchronize(state)
        with torch.profiler.profile(activities=kinds) as profiler:
            start = time.perf_counter()
            state = _epoch(state, images, draws)
            synchronize(state)
            seconds = time.perf_counter() - start
    spent: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    for name, part, microseconds in _events(profiler.events(), len(kinds) > 1):
        spent[name, part][0] += microseconds
        spent[name, part][1] += 1
    operations = [
        Operation(name, part, took / 1e6 / steps, calls / steps) for (name, part), (took, calls) in spent.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(folder / "trace.json.gz"))
    return Profile(operations, seconds / steps, "trace.json.gz", len(kinds) > 1)


def _epoch(state: State, images: Array, draws: Any) -> State:
    """An epoch as execution.py's eager one, its parts named."""
    config = state.config
    with precision(config.training.precision):
        for place in range(len(draws.order)):
            with record_function(f"{SCOPE}gather"):
                draw = made(config, draws_at(draws, place))
                pixels = images.index_select(0, draw.order)
                batch = prepare_images(pixels, draw.thresholds, getattr(torch, config.training.dtype))
            gradients, _ = step.batch_gradients(state, batch, draw.noise)
            with record_function(f"{SCOPE}adam"):
                state = step.updated(state, gradients)
    return state


@contextlib.contextmanager
def _scopes(state: State) -> Iterator[None]:
    """Names what the model and its loss compute, for as long as the block lasts."""
    model, original = state.model, step.batch_loss

    def named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def scoped(*arguments: Any, **keywords: Any) -> Any:
            with record_function(f"{SCOPE}{part}"):
                return function(*arguments, **keywords)

        return scoped

    held = {"forward": "latents", "encode": "encoder", "decode": "decoder", "decode_flat": "decoder"}
    step.batch_loss = named("loss", original)
    for name, part in held.items():
        if hasattr(model, name):
            object.__setattr__(model, name, named(part, getattr(model, name)))
    try:
        yield
    finally:
        step.batch_loss = original
        for name in held:
            vars(model).pop(name, None)


def _events(events: Any, on_cuda: bool) -> list[tuple[str, str, float]]:
    """Name, part and microseconds of every operation that the profiler saw."""
    forward: dict[int, str] = {}
    for event in events:
        part = _scope(event)
        if event.sequence_nr >= 0 and part is not None:
            forward.setdefault(event.sequence_nr, part)
    found = []
    for event in events:
        took = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        if took <= 0 or event.name.startswith(SCOPE) or (on_cuda and event.device_type.name == "CUDA"):
            continue  # what is between operators is the host's; a kernel counts where it was launched
        part = _scope(event) or _backward(event, forward)
        if part is not None:
            found.append((event.name, part, took))
    return found


def _scope(event: Any) -> str | None:
    """The innermost part that an operation was called in."""
    while event is not None:
        if event.name.startswith(SCOPE):
            return str(event.name.removeprefix(SCOPE))
        event = event.cpu_parent
    return None


def _backward(event: Any, forward: dict[int, str]) -> str | None:
    """The part whose gradient an operation of the backward pass is; the loss's, where it does not say."""
    engine = None
    while event is not None:
        if event.name.startswith("autograd::engine"):
            engine = event
        event = event.cpu_parent
    if engine is None:
        return None
    part = forward.get(engine.sequence_nr, "loss")
    return f"{part}{BACKWARD}" if part in FORWARD and f"{part}{BACKWARD}" in PARTS else f"loss{BACKWARD}"
