"""What a training step has to compute and to move, counted from the config.

FLOPs are those of the matrix products (a multiplication and an addition each count one), which is what
"model FLOPs" means in utilisation figures. Bytes are the least: every array that a step has to read or write,
once per use, as if nothing were fused away and nothing read twice.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from vae_common import reference
from vae_common.config import Config
from vae_common.errors import InputError


class Product(NamedTuple):
    """A layer's product: (batch, inputs) times (inputs, outputs)."""

    inputs: int
    outputs: int
    needs_input_gradient: bool
    """Whether the backward pass needs the gradient of its inputs: not where they are the images."""


def is_counted(config: Config) -> bool:
    """Whether a step is one pass of the batch through dense layers: what is counted here."""
    weights = [shape for name, shape in reference.shapes(config).items() if name.endswith(".weight")]
    return all(len(shape) == 2 for shape in weights) and config.loss.samples == 1


def products(config: Config) -> list[Product]:
    """The layers of the model, in the order of the forward pass; InputError where they are not counted."""
    if not is_counted(config):
        raise InputError("floor: received convolutions or several draws, expected dense layers and one draw")
    weights = {name: shape for name, shape in reference.shapes(config).items() if name.endswith(".weight")}
    first = "encoder.hidden.0.weight"
    reads_images = [first] if first in weights else [name for name in weights if name.startswith("encoder.")]
    return [Product(shape[1], shape[0], name not in reads_images) for name, shape in weights.items()]


def parameters(config: Config) -> int:
    """Number of weights and biases."""
    return sum(math.prod(shape) for shape in reference.shapes(config).values())


def step_flops(config: Config) -> int:
    """FLOPs of one step's products: forward, gradient of the weights, gradient of the inputs where needed."""
    batch = config.training.batch_size
    return sum(2 * batch * p.inputs * p.outputs * (3 if p.needs_input_gradient else 2) for p in products(config))


def step_bytes(config: Config) -> int:
    """Least bytes that one step reads and writes.

    Weights twice (forward, backward); their gradient written; Adam reads weight, gradient and two moments and
    writes weight and moments; each layer's output written, read by the next and read again by the backward
    pass, its gradient written and read twice; images read as uint8 and used as floats.
    """
    size = 8 if config.training.dtype == "float64" else 4
    short = 2 if config.training.product_dtype else size
    batch, count = config.training.batch_size, parameters(config)
    activations = sum(6 * batch * p.outputs * short for p in products(config))
    images = batch * config.pixels * (1 + 3 * short)
    return 2 * count * short + count * short + 7 * count * size + activations + images
