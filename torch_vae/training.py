"""Training: the state, one step, one epoch, a whole fit. Twin: jax_vae/training.py.

`train_step` and `train_epoch` take numbers and not sources of them: every random draw is an argument.
The state that they are given is consumed (it is updated in place); go on with the one they return.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vae_common import randomness
from vae_common.checkpoints import FIRST, SECOND, STEP, check_state, part_of, weights_of
from vae_common.configs import Config
from vae_common.contracts import Terms
from vae_common.datasets import Dataset, evaluation_images, training_images
from vae_common.randomness import Draws
from vae_common.records import EpochRecord, NonFiniteLoss, epoch_record

from .device import precision, select_device, synchronize, to_device, to_numpy
from .inference import evaluate, prepare_images
from .losses import loss_terms
from .models import Autoencoder, create_model, empty_model
from .parameters import load_arrays, parameter_shapes, to_arrays


@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(next((moments["step"] for moments in self.optimizer.state.values()), 0))


def create_state(config: Config) -> State:
    """The experiment before its first step, on its device; equal in both halves."""
    model = create_model(config)
    return State(model, _adam(model, config), config)


def train_step(state: State, images, noise) -> tuple[State, Terms]:
    """One update on a batch.

    Args:
        state: consumed.
        images: what the model sees, in [0, 1], (batch, height, width, channels), of the state's dtype.
        noise: standard normal, (batch, noise_dim): (batch, latent_dim) for a VAE, (batch, 0) for an AE.
            NumPy arrays are copied to the device first; write into them as soon as this returns.

    Returns:
        The next state, and the batch's terms before the update, each the mean per image.
    """
    with precision(state.config.training.dtype):
        return _step(state, *_on_device(state.config, images, noise))


def train_epoch(state: State, images, draws: Draws) -> tuple[State, Terms]:
    """One pass over resident images: eager steps, nothing read back between them.

    Args:
        state: consumed.
        images: uint8 on the device, (N, height, width, channels), from `place_images`.
        draws: the epoch's order, noise and thresholds, from `epoch_draws`.

    Returns:
        The next state, and every step's terms, (steps,) each, the mean per image.
    """
    with precision(state.config.training.dtype):
        return _epoch(state, images, draws)


def gradients(state: State, images, noise) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.dtype):
        computed, terms = _gradients(state, *_on_device(state.config, images, noise))
        return {name: to_numpy(computed[name]) for name in sorted(computed)}, terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, device = state.config.training.dtype, select_device(state.config.training.device)
    with precision(dtype):
        model = load_arrays(state.model, arrays, dtype, device)
        return _update(state, dict(model.named_parameters()))


def place_images(images: np.ndarray, config: Config) -> torch.Tensor:
    """uint8 images as they stay on the device for a whole fit."""
    return to_device(images, select_device(config.training.device))


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The random numbers of epoch 0, 1, ... on the device: NumPy's, or PyTorch's own if `native`."""
    device = select_device(config.training.device)
    if config.training.randomness == "native":
        return _native_draws(config, epoch, images, device)
    draws = randomness.epoch_draws(config, epoch, images)
    draws = draws._replace(noise=draws.noise.astype(config.training.dtype))
    return Draws._make(None if draw is None else to_device(draw, device) for draw in draws)


def fit(state: State, dataset: Dataset, *, on_epoch: Callable[[State, EpochRecord], None] | None = None) -> State:
    """Trains from wherever the state stands to the config's last epoch.

    Args:
        state: consumed.
        dataset: its validation split, or else its test split, is evaluated after every epoch.
        on_epoch: called with the state and the record of each finished epoch.

    Raises:
        NonFiniteLoss: with epoch and step; its `state` is the one before the epoch where it happened.
    """
    config = state.config
    dataset.require_shape(config.image_shape)
    images = place_images(training_images(dataset, config.data.binarization), config)
    split, held_out = evaluation_images(dataset, config.data.binarization)
    steps = randomness.steps_per_epoch(len(images), config.training.batch_size)
    for epoch in range(state.step // steps, config.training.epochs):
        draws = epoch_draws(config, epoch, len(images))
        last_good = _copy(state)
        synchronize(draws)  # the clock sees the steps alone, not the draws
        start = time.perf_counter()
        state, terms = train_epoch(state, images, draws)
        terms = Terms(*(term.cpu().double().numpy() for term in terms))  # the epoch's only wait
        seconds = time.perf_counter() - start
        evaluation = evaluate(state.model, held_out, config)
        try:
            record = epoch_record(epoch, config, terms, split, evaluation, seconds)
        except NonFiniteLoss as error:
            error.state = last_good
            raise
        if on_epoch is not None:
            on_epoch(state, record)
    return state


def state_to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as a checkpoint's canonical arrays: weights, both moments, step."""
    first, second = {}, {}
    for name, parameter in state.model.named_parameters():
        moments = state.optimizer.state.get(parameter, {})
        zeros = torch.zeros_like(parameter)  # PyTorch makes the moments at the first step
        first[FIRST + name] = to_numpy(moments.get("exp_avg", zeros))
        second[SECOND + name] = to_numpy(moments.get("exp_avg_sq", zeros))
    return to_arrays(state.model) | first | second | {STEP: np.array(state.step, np.int64)}


def state_from_arrays(config: Config, arrays: Mapping[str, np.ndarray]) -> State:
    """The inverse of `state_to_arrays`, whichever half wrote them; InputError lists what does not fit."""
    dtype, device = config.training.dtype, select_device(config.training.device)
    model = empty_model(config)
    check_state(parameter_shapes(model), arrays, dtype)
    first = load_arrays(model, part_of(arrays, FIRST), dtype, device).state_dict()
    second = load_arrays(model, part_of(arrays, SECOND), dtype, device).state_dict()
    model = load_arrays(model, weights_of(arrays), dtype, device)
    optimizer = _adam(model, config)
    for name, parameter in model.named_parameters():
        step = torch.tensor(float(arrays[STEP]), dtype=torch.float32, device=device)
        optimizer.state[parameter] = {"step": step, "exp_avg": first[name], "exp_avg_sq": second[name]}
    return State(model, optimizer, config)


def _on_device(config, *arrays):
    """Copies of NumPy arrays: what runs asynchronously must not read a buffer that is overwritten meanwhile."""
    device, dtype = select_device(config.training.device), config.training.dtype
    return (to_device(a.astype(dtype), device) if isinstance(a, np.ndarray) else a for a in arrays)


def _copy(state):
    return copy.deepcopy(state)


def _adam(model, config):
    return torch.optim.Adam(model.parameters(), config.training.learning_rate, fused=True)


def _gradients(state, images, noise):
    terms = loss_terms(state.config.loss, state.model(images, noise), images)
    means = Terms(*(term.mean() for term in terms))
    loss = means.total if state.config.loss.reduction == "mean" else terms.total.sum()
    parameters = dict(state.model.named_parameters())
    computed = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, computed)), Terms(*(mean.detach() for mean in means))


def _update(state, gradients):
    for name, parameter in state.model.named_parameters():
        parameter.grad = gradients[name].detach()
    state.optimizer.step()
    return state


def _step(state, images, noise):
    gradients, means = _gradients(state, images, noise)
    return _update(state, gradients), means


def _epoch(state, images, draws):
    dtype = getattr(torch, state.config.training.dtype)
    steps = []
    for step, order in enumerate(draws.order):
        thresholds = None if draws.thresholds is None else draws.thresholds[step]
        batch = prepare_images(images[order], thresholds, dtype)
        state, means = _step(state, batch, draws.noise[step])
        steps.append(means)
    return state, Terms(*(torch.stack(term) for term in zip(*steps)))


def _native_draws(config, epoch, images, device):
    batch = config.training.batch_size
    steps = randomness.steps_per_epoch(images, batch)
    generator = torch.Generator(device)
    generator.manual_seed(int(randomness.seed_sequence(config.seed, epoch).generate_state(1, np.uint64)[0] >> 1))
    order = torch.randperm(images, generator=generator, device=device)[: steps * batch].reshape(steps, batch)
    shape, dtype = (steps, batch, config.noise_dim), getattr(torch, config.training.dtype)
    noise = torch.randn(shape, generator=generator, device=device, dtype=dtype)
    thresholds = None
    if config.data.binarization == "dynamic":
        shape = (steps, batch, *config.image_shape)
        thresholds = torch.randint(0, 255, shape, generator=generator, device=device, dtype=torch.uint8)
    return Draws(order.int(), noise, thresholds)
