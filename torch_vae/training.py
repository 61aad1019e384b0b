"""Training: the state, one step, its draws. Twin: jax_vae/training.py.

`train_step` takes numbers and not sources of them: every random draw is an argument. The state that it is
given is consumed (it is updated in place); go on with the one it returns.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from vae_common import randomness
from vae_common.batches import require_batch, require_labels, require_resident
from vae_common.checkpoints import AVERAGE, FIRST, SECOND, STEP, check_state, part_of, weights_of
from vae_common.configs import Config, InputError, require_count
from vae_common.contracts import Terms
from vae_common.randomness import Draws

from .device import device_for, precision, to_device, to_numpy
from .models import Autoencoder, create_model, empty_model
from .objectives import batch_loss
from .optimizers import adam, averaged, clipped, learning_rate
from .parameters import load_arrays, parameter_shapes, to_arrays


@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config
    average: Any = None
    """The model with the moving average of the weights, if the config keeps one."""
    seeds: tuple[int, ...] = ()
    """Where given, several experiments at once: every array has a leading axis of seeds (see parallel.py)."""

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(_count(self))

    @property
    def evaluated(self) -> Autoencoder:
        """The model that evaluations use: the averaged one, where there is one."""
        return self.model if self.average is None else self.average


def create_state(config: Config, images: np.ndarray | None = None) -> State:
    """The experiment before its first step, on its device; equal in both halves.

    `images` are the training images; only an `output_bias` of `data_mean` reads them, and cannot do without.
    """
    model = create_model(config)
    if config.network.output_bias == "data_mean":
        seen = None if images is None else require_resident(config, images)
        biased = randomness.with_mean_bias(to_arrays(model), seen)
        model = load_arrays(model, biased, config.training.dtype, device_for(config))
    with precision(config.training.precision):
        average = copy.deepcopy(model) if config.optimizer.average else None
        return State(model, adam(model, config), config, average)


def train_step(state: State, images, noise, labels=None) -> tuple[State, Terms]:
    """One update on a batch.

    Args:
        state: consumed.
        images: what the model sees, in [0, 1], (batch, height, width, channels), of the state's dtype.
        noise: standard normal, (batch, *config.noise_shape): (batch, latent_dim) for a VAE, (batch, 0) for an AE.
        labels: integers (batch,) where the model is given classes.
            NumPy arrays are copied to the device first; write into them as soon as this returns.

    Returns:
        The next state, and the batch's terms before the update, each the mean per image.

    Raises:
        InputError: for other shapes or types, and for NumPy arrays that hold what is none (see vae_common/batches.py).
    """
    with precision(state.config.training.precision):
        return _step(state, *_on_device(state, images, noise, labels))


def gradients(state: State, images, noise, labels=None) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.precision):
        computed, terms = _gradients(state, *_on_device(state, images, noise, labels))
        return {name: to_numpy(computed[name]) for name in sorted(computed)}, terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, device = state.config.training.dtype, device_for(state.config)
    with precision(dtype):
        model = load_arrays(state.model, arrays, dtype, device)
        return _update(state, dict(model.named_parameters()))


def place_images(images: np.ndarray, config: Config) -> torch.Tensor:
    """Images, uint8 from 0 to 255, bool or float32 in [0, 1], as they stay on the device for a whole fit."""
    return to_device(require_resident(config, images), device_for(config))


def place_labels(labels: np.ndarray, config: Config) -> torch.Tensor:
    """Labels as they stay on the device for a whole fit, where the model is given classes."""
    return to_device(require_labels(config, labels), device_for(config))


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The random numbers of epoch 0, 1, ... on the device: NumPy's, or PyTorch's own if `native`."""
    require_count("epoch", epoch)
    device = device_for(config)
    with precision(config.training.precision):
        if config.training.randomness == "native":
            return _native_draws(config, epoch, images, device)
        draws = randomness.epoch_draws(config, epoch, images)
        draws = draws._replace(noise=draws.noise.astype(config.training.dtype))
        return Draws._make(None if draw is None else to_device(draw, device) for draw in draws)


def lost_part(state: State) -> str | None:
    """What of a state is not finite: its `weights`, `first moments`, `second moments` or `averaged weights`; or None.

    An infinite second moment shows in no loss: its parameter merely stands still.
    """
    moments = [state.optimizer.state[parameter] for parameter in state.model.parameters()]
    parts = {
        "weights": list(state.model.parameters()),
        "first moments": [of["exp_avg"] for of in moments],
        "second moments": [of["exp_avg_sq"] for of in moments],
    }
    if state.average is not None:
        parts["averaged weights"] = list(state.average.parameters())
    with precision(state.config.training.precision):
        finite = to_numpy(_all_finite(list(parts.values())))
    return next((name for name, found in zip(parts, finite) if not found), None)


def state_to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as a checkpoint's canonical arrays: weights, both moments, step."""
    arrays = to_arrays(state.model) | {STEP: np.array(state.step, np.int64)}
    for name, parameter in state.model.named_parameters():
        moments = state.optimizer.state[parameter]
        arrays[FIRST + name] = to_numpy(moments["exp_avg"])
        arrays[SECOND + name] = to_numpy(moments["exp_avg_sq"])
    if state.average is not None:
        arrays |= {AVERAGE + name: array for name, array in to_arrays(state.average).items()}
    return arrays


def state_from_arrays(config: Config, arrays: Mapping[str, np.ndarray]) -> State:
    """The inverse of `state_to_arrays`, whichever half wrote them; InputError lists what does not fit."""
    dtype, device = config.training.dtype, device_for(config)
    with precision(dtype):
        model = empty_model(config)
        check_state(parameter_shapes(model), arrays, dtype, bool(config.optimizer.average))
        model = load_arrays(model, weights_of(arrays), dtype, device)
        optimizer = adam(model, config)
        for name, parameter in model.named_parameters():
            step = torch.tensor(float(arrays[STEP]), dtype=torch.float32, device=device)
            first, second = to_device(arrays[FIRST + name], device), to_device(arrays[SECOND + name], device)
            optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
        average = load_arrays(model, part_of(arrays, AVERAGE), dtype, device) if config.optimizer.average else None
        return State(model, optimizer, config, average)


def _on_device(state, images, noise, labels):
    """Copies of NumPy arrays: what runs asynchronously must not read a buffer that is overwritten meanwhile."""
    config = state.config
    if state.seeds:
        raise InputError("state: received one of several seeds, expected a single one; train_epoch takes both")
    require_batch(config, images, noise, labels)
    device, dtype = device_for(config), config.training.dtype
    if isinstance(labels, np.ndarray):
        labels = to_device(labels.astype(np.int32), device)
    return *(to_device(a.astype(dtype), device) if isinstance(a, np.ndarray) else a for a in (images, noise)), labels


def _count(state):
    """Updates so far, a scalar tensor on the device (of a stacked state, too: its seeds take their steps together)."""
    return next(iter(state.optimizer.state.values()))["step"]


def _gradients(state, images, noise, labels=None):
    loss, means = batch_loss(state.model, state.config, images, noise, labels, _count(state))
    parameters = dict(state.model.named_parameters())
    computed = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, computed)), Terms(*(mean.detach() for mean in means))


def _update(state, gradients):
    clip = partial(clipped, state.config)
    gradients = torch.func.vmap(clip)(gradients) if state.seeds else clip(gradients)
    for name, parameter in state.model.named_parameters():
        parameter.grad = gradients[name].detach().contiguous()  # fused Adam takes them as if their strides were equal
    rate = learning_rate(state.config, _count(state))
    (group,) = state.optimizer.param_groups
    group["lr"] = float(rate) if not group["capturable"] else rate
    state.optimizer.step()
    average = None if state.average is None else averaged(state.config, state.average, state.model)
    return replace(state, average=average)


@torch.no_grad()
def _all_finite(parts):
    return torch.stack([torch.stack([torch.isfinite(leaf).all() for leaf in part]).all() for part in parts])


def _step(state, images, noise, labels=None):
    gradients, means = _gradients(state, images, noise, labels)
    return _update(state, gradients), means


def _native_draws(config, epoch, images, device):
    batch = config.training.batch_size
    steps = randomness.steps_per_epoch(images, batch)
    generator = torch.Generator(device)
    generator.manual_seed(int(randomness.seed_sequence(config.seed, epoch).generate_state(1, np.uint64)[0] >> 1))
    order = torch.randperm(images, generator=generator, device=device)[: steps * batch].reshape(steps, batch)
    shape, dtype = (steps, batch, *config.noise_shape), getattr(torch, config.training.dtype)
    noise = torch.randn(shape, generator=generator, device=device, dtype=dtype)
    thresholds = None
    if config.data.binarization == "dynamic":
        shape = (steps, batch, *config.image_shape)
        thresholds = torch.randint(0, 255, shape, generator=generator, device=device, dtype=torch.uint8)
    return Draws(order.int(), noise, thresholds)
