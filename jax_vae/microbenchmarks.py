"""What a benchmark measures beside training: ceilings, the parts of a step. Twin: torch_vae/microbenchmarks.py.

Every function gives callables that run that many times and wait for the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_common.backend import Repeated
from vae_common.config import Config

from .batches import draws_at, epoch_draws, place_images, prepare_images
from .compiling import compiler_options
from .device import Array, device_for, precision, synchronize, to_device
from .execution import batch_step
from .objectives import batch_loss
from .optimizers import adam
from .state import create_state, update_count
from .step import batch_gradients


def matrix_products(config: Config, products: Sequence[tuple[int, int, bool]]) -> Repeated:
    """The products of one training step, forward and backward, in the config's precision.

    Each of `products` is a layer's inputs, its outputs, and whether the backward pass needs the gradient of its inputs.
    """
    operands, weights, needs = _operands(config, products)
    with precision(config.training.precision):
        first = operands, _forward(operands, weights), _backward(operands, weights, needs)

    def step(carry, place):
        operands = _at(place, carry[0])
        return (operands, _forward(operands, weights), _backward(operands, weights, needs)), None

    return _in_a_scan(config, step, first)


def adam_updates(config: Config) -> Repeated:
    """Adam's update alone, over the model's parameters."""
    state = create_state(config)
    with precision(config.training.precision):
        gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), state.model)

    def step(carry, place):
        model, optimizer, gradients = carry
        gradients = _at(place, gradients)
        updates, optimizer = adam(config).update(gradients, optimizer, model)
        return (optax.apply_updates(model, updates), optimizer, gradients), None

    return _in_a_scan(config, step, (state.model, state.optimizer, gradients))


def products_and_adam(config: Config, products: Sequence[tuple[int, int, bool]]) -> Repeated:
    """A step's products, forward and then backward, and Adam's update by the gradients that they made, in turn.

    What a step of these layers cannot do without, with caches as they are in one; takes what `matrix_products` takes.
    """
    config = replace(config, training=replace(config.training, learning_rate=_HARDLY))
    operands, weights, needs = _operands(config, products)
    with precision(config.training.precision):
        results, back = _forward(operands, weights), _backward(operands, weights, needs)[1]
        first = weights, adam(config).init(weights), operands, results, back

    def step(carry, place):
        weights, optimizer, operands, *_ = carry
        operands = _at(place, operands)
        results = _forward(operands, weights)
        gradients, back = _backward(operands, weights, needs)
        updates, optimizer = adam(config).update(gradients, optimizer, weights)
        return (optax.apply_updates(weights, updates), optimizer, operands, results, back), None

    return _in_a_scan(config, step, first)


def streaming(config: Config, count: int) -> Repeated:
    """a + 2 b over float32 arrays of `count` elements: moves 12 bytes an element."""
    device = device_for(config)
    a, b = (to_device(np.ones(count, np.float32), device) for _ in range(2))
    triad = jax.jit(lambda a, b: a + 2 * b, donate_argnums=0)

    def run(repeats: int) -> None:
        nonlocal a
        for _ in range(repeats):
            a = triad(a, b)
        synchronize(a)

    return run


def step_parts(config: Config) -> dict[str, Repeated]:
    """Growing parts of one step, each a program of its own: gather, + forward, + backward; and Adam's update."""
    rng = np.random.default_rng(0)
    count = config.training.batch_size
    images = place_images(rng.integers(0, 256, (count, *config.image_shape), np.uint8), config)
    state, draws = create_state(config), epoch_draws(config, 0, count)

    def gather(state, images, draws):
        return prepare_images(images[draws.order[0]], None, config.training.dtype)

    def forward(state, images, draws):
        return batch_loss(state.model, config, gather(state, images, draws), draws.noise[0], None, update_count(state))

    def backward(state, images, draws):
        return batch_gradients(state, gather(state, images, draws), draws.noise[0])

    def runs(part):
        program = jax.jit(part)

        def run(repeats: int) -> None:
            with precision(config.training.precision):
                for _ in range(repeats):
                    last = program(state, images, draws)
                synchronize(last)

        return run

    parts = {"gather": gather, "forward": forward, "backward": backward}
    return {name: runs(part) for name, part in parts.items()} | {"adam": adam_updates(config)}


def counted_flops(config: Config) -> float | None:
    """FLOPs of one step as XLA's cost analysis counts them before it optimizes, element-wise ones included.

    As accelerators run it: of a loop, which a convolution's gradient is on a CPU, one turn would be counted. None where
    JAX was told to leave out the CPU: no GPU's compiler counts.
    """
    try:
        jax.devices("cpu")
    except RuntimeError:
        return None
    training, count = config.training, config.training.batch_size
    exact = "float32" if training.precision == "tf32" else training.precision
    config = replace(config, training=replace(training, device="cpu", precision=exact))
    shape = jax.ShapeDtypeStruct((count, *config.image_shape), jnp.uint8)
    draws = draws_at(epoch_draws(config, 0, count), 0)
    with precision(config.training.precision):
        step = jax.jit(batch_step).trace(create_state(config), shape, draws)
        return step.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]


_HARDLY = 1e-30
"""A learning rate at which weights stay as they are."""


def _operands(config, products):
    """Of each product features and gradient, its weights, and whether the features' gradient is needed."""
    rng, device, batch = np.random.default_rng(0), device_for(config), config.training.batch_size
    dtype = config.training.product_dtype or config.training.dtype
    operands, weights = [], []
    with precision(config.training.precision):
        for inputs, outputs, _ in products:
            shapes = ((batch, inputs), (batch, outputs))
            operands.append(tuple(to_device(rng.random(shape, np.float32), device).astype(dtype) for shape in shapes))
            weights.append(to_device(rng.random((inputs, outputs), np.float32), device).astype(config.training.dtype))
    return operands, weights, [needed for *_, needed in products]


def _at(place, operands):
    """The same, bound to a place of the loop for the compiler: what does not change in a loop is computed once."""
    return jax.lax.optimization_barrier((operands, place))[0]


def _forward(operands, weights):
    return [x @ weight.astype(x.dtype) for (x, _), weight in zip(operands, weights)]


def _backward(operands, weights, needs):
    """The gradients of weights and, where needed, of features, the last layer's first."""
    gradients: list[Array] = []
    back = []
    for (x, gradient), weight, needed in reversed([*zip(operands, weights, needs)]):
        gradients.insert(0, (x.T @ gradient).astype(weight.dtype))
        back.append(gradient @ weight.astype(x.dtype).T if needed else None)
    return gradients, back


def _in_a_scan(config, step, first):
    """Runs a scan's body that many times, as an epoch runs its steps."""

    @partial(jax.jit, donate_argnums=0, static_argnums=1)
    def steps(carry, repeats):
        return jax.lax.scan(step, carry, jnp.arange(repeats))[0]

    carry, programs = first, {}

    def run(repeats: int) -> None:
        nonlocal carry
        with precision(config.training.precision):
            if repeats not in programs:
                programs[repeats] = steps.lower(carry, repeats).compile(compiler_options=compiler_options(config))
            carry = programs[repeats](carry)
            synchronize(carry)

    return run
