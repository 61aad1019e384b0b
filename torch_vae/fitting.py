"""A whole fit: epochs, evaluation, records. Twin: jax_vae/fitting.py."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vae_common import randomness
from vae_common.contracts import map_arrays
from vae_common.runs.epoch_records import EpochRecord, NonFiniteLoss, epoch_record

from .batches import place_images, place_labels
from .device import precision, synchronize, to_numpy
from .distributed import devices
from .ensembles import state_draws, unstack_states
from .execution import compile_epoch
from .inference import evaluate
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
) -> State:
    """Trains from wherever the state stands to the config's last epoch.

    Args:
        state: consumed. Of a stacked one (see ensembles.py) every seed is trained, all in one program.
        dataset: its validation split, or else its test split, is evaluated after every epoch.
        on_epoch: called with the state and the record of each finished epoch; of a stacked state with each
            seed's own, in their order.
        on_start: called before each epoch with a copy of the state, which it may keep.

    Raises:
        NonFiniteLoss: where a loss, or the state after an epoch, is not finite, with epoch and step; its `state` is the
            one before that epoch.
    """
    from vae_common.data.seen import seen_by, training_images  # who only uses a model does not wait for it

    config = state.config
    dataset.require_shape(config.image_shape)
    dataset.require_labels(config.network.classes)
    dataset.require_levels(config)
    dataset.require_count(config)
    images = place_images(training_images(dataset, config.data.binarization), config)
    held_out = seen_by(config, dataset)
    labels = [place_labels(dataset.train.labels, config)] if config.network.classes else []
    steps = randomness.steps_per_epoch(len(images), config.training.batch_size)
    program = None
    for epoch in range(state.step // steps, config.training.epochs):
        draws = state_draws(state, epoch, len(images))
        program = program or compile_epoch(state, images, draws, *labels)
        last_good = _copy(state)
        if on_start is not None:
            on_start(last_good)
        synchronize((draws, last_good))  # the clock sees the steps alone
        start = time.perf_counter()
        state, terms = program(state, images, draws, *labels)
        values = map_arrays(lambda term: to_numpy(term).astype(np.float64), terms)  # the epoch's only wait
        seconds = time.perf_counter() - start
        members = unstack_states(state) if state.seeds else [state]
        try:
            own = (
                [map_arrays(lambda term, i=i: term[:, i], values) for i in range(len(members))]
                if state.seeds
                else [values]
            )
            records = [_record(m, epoch, of, held_out, seconds) for m, of in zip(members, own)]
        except NonFiniteLoss as error:
            error.state = last_good
            raise
        for member, record in zip(members, records):  # only now: an epoch counts for all seeds or for none
            if on_epoch is not None:
                on_epoch(member, record)
    return state


def _record(state, epoch, values, held_out, seconds):
    """What an epoch of one seed was worth, with its evaluation; `values` are every step's terms, (steps,) each."""
    evaluation = evaluate(state.evaluated, held_out.images, state.config, held_out.labels)
    lost = lost_part(state)
    return epoch_record(epoch, state.config, values, held_out.split, evaluation, seconds, lost)


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
