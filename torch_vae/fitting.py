"""A whole fit: epochs, evaluation, records. Twin: jax_vae/fitting.py."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vae_common import randomness
from vae_common.contracts import Terms, map_arrays
from vae_common.data.ahead import Ahead
from vae_common.data.streams import chunks, last_chunk
from vae_common.errors import require
from vae_common.runs.epoch_records import EpochRecord, NonFiniteLoss, Spent, epoch_record

from .batches import place_chunk, place_images, place_labels
from .device import device_for, platform_of, precision, synchronize, to_numpy
from .distributed import devices, own_part
from .ensembles import seed_configs, state_draws, unstack_states
from .execution import compile_epoch
from .inference import evaluation_of
from .models import empty_model
from .state import State, lost_part

if TYPE_CHECKING:
    from vae_common.data.splits import Dataset


def fit(
    state: State,
    dataset: Dataset,
    *,
    on_epoch: Callable[[State, EpochRecord], None] | None = None,
    on_start: Callable[[State], None] | None = None,
    on_part: Callable[[State, int, Callable[[], Terms]], None] | None = None,
    done: Terms | None = None,
) -> State:
    """Trains from wherever the state stands to the config's last epoch.

    Args:
        state: consumed. Of a stacked one (see ensembles.py) every seed is trained, all in one program.
        dataset: its validation split, or else its test split, is evaluated after every epoch.
        on_epoch: called with the state and the record of each finished epoch; of a stacked state with each
            seed's own, in their order.
        on_start: called before each epoch with a copy of the state, which it may keep.
        on_part: called after each part of an epoch (of a stream there are many) with the state, the steps of the epoch
            that are done, and what gives their terms, float64 (steps,).
        done: of a stream: those terms, where the state stands within an epoch, which then goes on there.

    Raises:
        NonFiniteLoss: where a loss, or the state after an epoch, is not finite, with epoch and step; its `state` is the
            one before that epoch.
    """
    from vae_common.data.seen import evaluated_by, training_images  # who only uses a model does not wait for it

    config = state.config
    steps = randomness.steps_per_epoch(len(dataset.train), config.training.batch_size)
    _require_fitting(state, dataset, steps, done)
    on_cpu = platform_of(device_for(config)) == "cpu"
    ahead = Ahead(seed_configs(state) or [config], len(dataset.train), beside=not on_cpu)
    parts_of = _parts_of(dataset, config, training_images(dataset, config.data.binarization), ahead)
    held_out = evaluated_by(config, dataset)
    one = unstack_states(state)[0] if state.seeds else state
    evaluation = evaluation_of(one.evaluated, held_out.images, config, held_out.labels, keep=True)
    del one  # of several seeds a copy
    programs: dict[Any, Any] = {}
    for epoch in range(state.step // steps, config.training.epochs):
        behind, begun = _count(done), time.perf_counter()
        parts = parts_of(state, epoch, behind)
        first = next(parts)
        waited = time.perf_counter() - begun
        _compile_parts(programs, state, first, dataset.train, epoch, behind)
        last_good = _copy(state)
        if on_start is not None:
            on_start(last_good)
        synchronize((first[1], last_good))  # the clock sees the steps alone, and what they wait for of a stream
        parts = chain([first], parts)
        del first  # a stream's holds memory
        start = time.perf_counter()
        state, values = _run(programs, state, parts, done, on_part)
        seconds, done = time.perf_counter() - start, None
        spent = Spent(seconds, len(values.total) - behind, waited)
        try:
            records = _records(state, epoch, values, held_out.split, evaluation, spent)
        except NonFiniteLoss as error:
            error.state = last_good
            raise
        for member, record in records:  # only now: an epoch counts for all seeds or for none
            if on_epoch is not None:
                on_epoch(member, record)
    return state


def _run(programs, state, parts, done, on_part):
    """The state after these parts of an epoch, and every step's terms, float64, (steps,) each, those done first."""
    last = None
    for part in parts:
        state, terms = _compiled(programs, state, part)(state, *part)
        if last is not None:  # waits for it: no more of a stream lies on the device than is computed on, and the next
            done = _joined(done, last)  # each part's own would lie between what later steps want as one piece
        last = terms
        if on_part is not None:
            on_part(state, _count(done) + len(part[1].order), partial(_joined, done, last))
    return state, _joined(done, last)


def _joined(done, last):
    """The terms of all these steps, float64; those done may be None."""
    own = map_arrays(lambda term: to_numpy(term).astype(np.float64), last)
    return own if done is None else map_arrays(lambda *of: np.concatenate(of), done, own)


def _count(done):
    """Of the steps that an epoch has behind it."""
    return 0 if done is None else len(done.total)


def _require_fitting(state, dataset, steps, done):
    """Raises InputError where a state cannot be trained on these data, or has not done these steps of its epoch."""
    config = state.config
    dataset.require_shape(config.image_shape)
    dataset.require_labels(config.network.classes)
    dataset.require_levels(config)
    dataset.require_count(config)
    dataset.require_streamable(config)
    together = dataset.train.streamed and len(state.seeds) > 0
    require(not together, "state", f"{len(state.seeds)} seeds of a stream", "one seed at a time")
    if done is not None:
        found, expected = len(done.total), state.step % steps
        require(found == expected, "done", f"terms of {found} steps", f"of the {expected} that it has behind it")


def _compiled(programs, state, part):
    """The program for arguments of these shapes: made once."""
    shapes = tuple(part[1].order.shape)
    if shapes not in programs:
        programs[shapes] = compile_epoch(state, *part)
    return programs[shapes]


def _compile_parts(programs, state, first, split, epoch, behind):
    """Compiles an epoch's programs before the clock sees its steps: a stream's for its last part, too, which
    may be shorter."""
    _compiled(programs, state, first)
    if split.streamed:
        config = state.config
        last = last_chunk(split.images, split.labels, config, epoch, behind, own_part(config.training.batch_size))
        _compiled(programs, state, place_chunk(last, config, epoch))


def _parts_of(dataset, config, images, ahead):
    """A function of a state, an epoch and its first step: images, draws and labels for one program after the other. Of
    images in memory it is one, which they are placed for now."""
    if dataset.train.streamed:
        return lambda state, epoch, first: _streamed_parts(state, dataset.train, epoch, first)
    placed = place_images(images, config)
    own = [place_labels(dataset.train.labels, config)] if config.network.classes else []
    return lambda state, epoch, _: iter([(placed, state_draws(state, epoch, len(placed), ahead.of(epoch)), *own)])


def _streamed_parts(state, split, epoch, first):
    """Images, draws and labels of some steps after the other, read from a stream, from that step on."""
    config = state.config
    for chunk in chunks(split.images, split.labels, config, epoch, first, own_part(config.training.batch_size)):
        yield place_chunk(chunk, config, epoch)


def _records(state, epoch, values, split, evaluation, spent):
    """Each seed's state and what an epoch was worth to it; `values` are every step's terms, (steps[, seeds]) each."""
    if not state.seeds:
        return [(state, _record(state, epoch, values, split, evaluation, spent))]
    members = unstack_states(state)
    own = [map_arrays(lambda term, i=i: term[:, i], values) for i in range(len(members))]
    return [(member, _record(member, epoch, of, split, evaluation, spent)) for member, of in zip(members, own)]


def _record(state, epoch, values, split, evaluation, spent):
    """What an epoch of one seed was worth, with its evaluation; `values` are every step's terms, (steps,) each."""
    evaluated = evaluation(state.evaluated)
    return epoch_record(epoch, state.config, values, split, evaluated, spent, lost_part(state))


def _copy(state):
    """A copy to keep: of a state that several processes share what it holds, as it is spread."""
    with precision(state.config.training.precision):
        if devices() == 1:
            return copy.deepcopy(state)
        model, average = (_copied(model, state.config) for model in (state.model, state.average))
        optimizer = SimpleNamespace(state={})
        for parameter, own in zip(model.parameters(), state.model.parameters()):
            kept = state.optimizer.state[own]
            optimizer.state[parameter] = {name: tensor.detach().clone() for name, tensor in kept.items()}
        return replace(state, model=model, average=average, optimizer=optimizer)


def _copied(model, config):
    if model is None:
        return None
    twin = empty_model(config)
    for name, parameter in model.named_parameters():
        layer, _, attribute = name.rpartition(".")
        setattr(twin.get_submodule(layer), attribute, torch.nn.Parameter(parameter.detach().clone()))
    return twin
