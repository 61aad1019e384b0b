"""Training: the state, one step, its draws. Twin: jax_vae/training.py.

`train_step` takes numbers and not sources of them: every random draw is an argument. The state that it is
given is consumed (it is updated in place); go on with the one it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vae_common import randomness
from vae_common.checkpoints import FIRST, SECOND, STEP, check_state, part_of, weights_of
from vae_common.configs import Config
from vae_common.contracts import Terms
from vae_common.randomness import Draws

from .device import device_for, execution_for, precision, to_device, to_numpy
from .losses import loss_terms
from .models import Autoencoder, create_model, empty_model
from .parameters import load_arrays, parameter_shapes, to_arrays


@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config
    seeds: tuple[int, ...] = ()
    """Where given, several experiments at once: every array has a leading axis of seeds (see parallel.py)."""

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
    with precision(state.config.training.precision):
        return _step(state, *_on_device(state.config, images, noise))


def gradients(state: State, images, noise) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.precision):
        computed, terms = _gradients(state, *_on_device(state.config, images, noise))
        return {name: to_numpy(computed[name]) for name in sorted(computed)}, terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, device = state.config.training.dtype, device_for(state.config)
    with precision(dtype):
        model = load_arrays(state.model, arrays, dtype, device)
        return _update(state, dict(model.named_parameters()))


def place_images(images: np.ndarray, config: Config) -> torch.Tensor:
    """uint8 images as they stay on the device for a whole fit."""
    return to_device(images, device_for(config))


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The random numbers of epoch 0, 1, ... on the device: NumPy's, or PyTorch's own if `native`."""
    device = device_for(config)
    if config.training.randomness == "native":
        return _native_draws(config, epoch, images, device)
    draws = randomness.epoch_draws(config, epoch, images)
    draws = draws._replace(noise=draws.noise.astype(config.training.dtype))
    return Draws._make(None if draw is None else to_device(draw, device) for draw in draws)


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
    dtype, device = config.training.dtype, device_for(config)
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
    device, dtype = device_for(config), config.training.dtype
    return (to_device(a.astype(dtype), device) if isinstance(a, np.ndarray) else a for a in arrays)


def _adam(model, config):
    capturable = execution_for(config) == "graph"  # a CUDA graph needs its step count on the device
    return torch.optim.Adam(model.parameters(), config.training.learning_rate, fused=True, capturable=capturable)


def _batch_loss(model, config, images, noise):
    terms = loss_terms(config.loss, model(images, noise), images)
    means = Terms(*(term.mean() for term in terms))
    return means.total if config.loss.reduction == "mean" else terms.total.sum(), means


def _gradients(state, images, noise):
    loss, means = _batch_loss(state.model, state.config, images, noise)
    parameters = dict(state.model.named_parameters())
    computed = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, computed)), Terms(*(mean.detach() for mean in means))


def _update(state, gradients):
    for name, parameter in state.model.named_parameters():
        parameter.grad = gradients[name].detach().contiguous()  # fused Adam takes them as if their strides were equal
    state.optimizer.step()
    return state


def _step(state, images, noise):
    gradients, means = _gradients(state, images, noise)
    return _update(state, gradients), means


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
