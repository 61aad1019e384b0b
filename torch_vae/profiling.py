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
from vae_common.profiles import BACKWARD, FORWARD, PARTS, Operation, Profile, in_order

from . import execution, graphs, step
from .batches import epoch_draws
from .device import Array, device_for, execution_for, precision, synchronize
from .state import State, create_state

WARM_UP = 2
"""Epochs before the one that is profiled."""
SCOPE = "part: "


def profile(config: Config, images: Array, folder: Path) -> Profile:
    """The operations of an epoch's steps on placed images (N, height, width, channels), as PyTorch's operators.

    An operation belongs to the part that it was called in, and in the backward pass to that of the operation whose
    gradient it is. Steps are eager: a compiled one does not say what it comes from. Those of a CUDA graph are its
    kernels; they are told apart by their order, which is that of the same steps run eagerly.
    """
    mode, on_cuda = execution_for(config), device_for(config).type == "cuda"
    if mode.startswith("compile"):
        raise InputError("execution: received compile, which does not say what its kernels come from; profile eager")
    state, draws = create_state(config), epoch_draws(config, 0, len(images))
    with _scopes(state), _launched_one_by_one():
        profiler, seconds = _profiled(state, images, draws, on_cuda)
    found = _events(profiler.events(), on_cuda)
    told = "eager"
    if mode == "graph":
        kernels = _kernels(profiler.events())
        graph, taken = _profiled(create_state(config), images, draws, on_cuda)
        replayed = in_order(kernels, _device_events(graph.events()), len(draws.order))
        if replayed is not None:
            profiler, seconds, found, told = graph, taken, replayed, "graph"
    spent: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    for name, part, microseconds in found:
        spent[name, part][0] += microseconds
        spent[name, part][1] += 1
    steps = len(draws.order)
    operations = [
        Operation(name, part, took / 1e6 / steps, calls / steps) for (name, part), (took, calls) in spent.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(folder / "trace.json.gz"))
    return Profile(operations, seconds / steps, "trace.json.gz", on_cuda, told)


def _profiled(state: State, images: Array, draws: Any, on_cuda: bool) -> tuple[Any, float]:
    """The profiler of an epoch, and the epoch's seconds under it."""
    program = execution.compile_epoch(state, images, draws)
    with precision(state.config.training.precision):  # what would be captured has entered it there alone
        for _ in range(WARM_UP):
            state, _ = program(state, images, draws)
        synchronize(state)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_cuda]) as profiler:
            start = time.perf_counter()
            program(state, images, draws)
            synchronize(state)
            seconds = time.perf_counter() - start
    return profiler, seconds


@contextlib.contextmanager
def _launched_one_by_one() -> Iterator[None]:
    """Within the block what would be captured as a graph is run as it is."""
    original = graphs.capture
    graphs.capture = lambda step: step
    try:
        yield
    finally:
        graphs.capture = original


@contextlib.contextmanager
def _scopes(state: State) -> Iterator[None]:
    """Names what the model, its loss and Adam compute, for as long as the block lasts."""
    model, original, updated = state.model, step.batch_loss, execution.updated

    def named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def scoped(*arguments: Any, **keywords: Any) -> Any:
            with record_function(f"{SCOPE}{part}"):
                return function(*arguments, **keywords)

        return scoped

    held = {"forward": "latents", "encode": "encoder", "decode": "decoder", "decode_flat": "decoder"}
    step.batch_loss, execution.updated = named("loss", original), named("adam", updated)
    for name, part in held.items():
        if hasattr(model, name):
            object.__setattr__(model, name, named(part, getattr(model, name)))
    try:
        yield
    finally:
        step.batch_loss, execution.updated = original, updated
        for name in held:
            vars(model).pop(name, None)


def _events(events: Any, on_cuda: bool) -> list[tuple[str, str, float]]:
    """Name, part and microseconds of every operation that the profiler saw."""
    forward, found = _forward_parts(events), []
    for event in events:
        took = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        if took <= 0 or event.name.startswith(SCOPE) or (on_cuda and event.device_type.name == "CUDA"):
            continue  # what is between operators is the host's; a kernel counts where it was launched
        found.append((event.name, _part(event, forward), took))
    return found


def _part(event: Any, forward: dict[int, str]) -> str:
    """The part that an operation belongs to; what runs in none of them belongs to the gathering of the batch."""
    return _scope(event) or _backward(event, forward) or "gather"


def _kernels(events: Any) -> list[tuple[str, str]]:
    """Name and part of every kernel that was launched, in that order."""
    forward = _forward_parts(events)
    launched = sorted((event for event in events if event.kernels), key=lambda event: event.time_range.start)
    return [(kernel.name, _part(event, forward)) for event in launched for kernel in event.kernels]


def _device_events(events: Any) -> list[tuple[str, float]]:
    """Name and microseconds of everything that ran on the device, in that order."""
    ran = [event for event in events if event.device_type.name == "CUDA"]
    return [(e.name, e.time_range.elapsed_us()) for e in sorted(ran, key=lambda event: event.time_range.start)]


def _forward_parts(events: Any) -> dict[int, str]:
    """The part of every operation that has a gradient, by its number."""
    forward: dict[int, str] = {}
    for event in events:
        part = _scope(event)
        if event.sequence_nr >= 0 and part is not None:
            forward.setdefault(event.sequence_nr, part)
    return forward


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
