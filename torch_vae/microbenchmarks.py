"""What a benchmark measures beside training: ceilings, the parts of a step. Twin: jax_vae/microbenchmarks.py.

Every function gives callables that run that many times and wait for the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vae_common.backend import Repeated
from vae_common.config import Config

from . import graphs
from .batches import draws_at, epoch_draws, place_images, prepare_images
from .device import Array, device_for, execution_for, precision, synchronize, to_device
from .objectives import batch_loss
from .optimizers import adam
from .state import create_state, update_count
from .step import batch_gradients


def matrix_products(config: Config, products: Sequence[tuple[int, int, bool]]) -> Repeated:
    """The products of one training step, forward and backward, in the config's precision.

    Each of `products` is a layer's inputs, its outputs, and whether the backward pass needs the gradient of its inputs.
    """
    operands, weights, needs = _operands(config, products)
    kept: Any = None  # until the next are there, as a step keeps them

    @torch.no_grad()
    def step() -> None:
        nonlocal kept
        kept = _forward(operands, weights), _backward(operands, weights, needs)

    return _repeated(config, step)


def adam_updates(config: Config) -> Repeated:
    """Adam's update alone, over the model's parameters."""
    state = create_state(config)
    gradients = [torch.full_like(parameter, 1e-3) for parameter in state.model.parameters()]
    return _repeated(config, lambda: state.optimizer.step(gradients))


def products_and_adam(config: Config, products: Sequence[tuple[int, int, bool]]) -> Repeated:
    """A step's products, forward and then backward, and Adam's update by the gradients that they made, in turn.

    What a step of these layers cannot do without, with caches as they are in one; takes what `matrix_products` takes.
    """
    config = replace(config, training=replace(config.training, learning_rate=_HARDLY))
    operands, weights, needs = _operands(config, products)
    layers = torch.nn.ParameterList(weights)
    optimizer = adam(layers, config)

    @torch.no_grad()
    def step() -> None:
        _ = _forward(operands, weights)
        gradients, _ = _backward(operands, weights, needs)
        optimizer.step(gradients)

    return _repeated(config, step)


def streaming(config: Config, count: int) -> Repeated:
    """a + 2 b over float32 arrays of `count` elements: moves 12 bytes an element."""
    device = device_for(config)
    a, b = (to_device(np.ones(count, np.float32), device) for _ in range(2))

    def run(repeats: int) -> None:
        for _ in range(repeats):
            torch.add(a, b, alpha=2, out=a)
        synchronize(a)

    return run


def step_parts(config: Config) -> dict[str, Repeated]:
    """Growing parts of one step, each run by itself: gather, + forward, + backward; and Adam's update."""
    rng = np.random.default_rng(0)
    count = config.training.batch_size
    images = place_images(rng.integers(0, 256, (count, *config.image_shape), np.uint8), config)
    state, draws = create_state(config), epoch_draws(config, 0, count)

    def gather(state, images, draws):
        return prepare_images(images.index_select(0, draws.order[0]), None, getattr(torch, config.training.dtype))

    def forward(state, images, draws):
        return batch_loss(state.model, config, gather(state, images, draws), draws.noise[0], None, update_count(state))

    def backward(state, images, draws):
        return batch_gradients(state, gather(state, images, draws), draws.noise[0])

    def runs(part):
        def run(repeats: int) -> None:
            with precision(config.training.precision):
                for _ in range(repeats):
                    last = part(state, images, draws)
                synchronize(last)

        return run

    parts = {"gather": gather, "forward": forward, "backward": backward}
    return {name: runs(part) for name, part in parts.items()} | {"adam": adam_updates(config)}


def counted_flops(config: Config) -> float:
    """FLOPs of one step as PyTorch's counter has them: those of its matrix products."""
    count = config.training.batch_size
    images = place_images(np.zeros((count, *config.image_shape), np.uint8), config)
    state, draw = create_state(config), draws_at(epoch_draws(config, 0, count), 0)
    dtype = getattr(torch, config.training.dtype)
    with precision(config.training.precision), FlopCounterMode(display=False) as counter:
        batch_gradients(state, prepare_images(images.index_select(0, draw.order), draw.thresholds, dtype), draw.noise)
    return float(counter.get_total_flops())


_HARDLY = 1e-30
"""A learning rate at which weights stay as they are."""


def _operands(config, products):
    """Of each product features and gradient, its weights, and whether the features' gradient is needed."""
    rng, device, batch = np.random.default_rng(0), device_for(config), config.training.batch_size
    dtype = getattr(torch, config.training.product_dtype or config.training.dtype)
    operands, weights = [], []
    for inputs, outputs, _ in products:
        shapes = ((batch, inputs), (batch, outputs))
        operands.append(tuple(to_device(rng.random(shape, np.float32), device).to(dtype) for shape in shapes))
        weight = to_device(rng.random((outputs, inputs), np.float32), device)
        weights.append(torch.nn.Parameter(weight.to(getattr(torch, config.training.dtype))))
    return operands, weights, [needed for *_, needed in products]


def _forward(operands, weights):
    return [x @ weight.to(x.dtype).T for (x, _), weight in zip(operands, weights)]


def _backward(operands, weights, needs):
    """The gradients of weights and, where needed, of features, the last layer's first."""
    gradients: list[Array] = []
    back = []
    for (x, gradient), weight, needed in reversed([*zip(operands, weights, needs)]):
        gradients.insert(0, (gradient.T @ x).to(weight.dtype))
        back.append(gradient @ weight.to(x.dtype) if needed else None)
    return gradients, back


def _repeated(config, step):
    """Runs it that many times; on CUDA from a graph, as training does: launching would be what is measured."""
    with precision(config.training.precision):
        again = graphs.capture(step) if execution_for(config).endswith("graph") else step

    def run(repeats: int) -> None:
        with precision(config.training.precision):
            for _ in range(repeats):
                again()
            synchronize(None)

    return run
