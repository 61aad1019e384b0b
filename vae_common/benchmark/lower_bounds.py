"""What a training step is held against: products, Adam and streaming, by every library at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from vae_common.backend import Half, Halves, Repeated, load_microbenchmarks
from vae_common.benchmark import costs
from vae_common.config import Config


def candidates(
    half: Half, others: Callable[[], Halves], config: Config, elements: int, on_cpu: bool
) -> dict[str, Repeated]:
    """By kind and library, `products torch`: a step's products, Adam, the two in turn, streaming over `elements`.

    On a CPU every half's and NumPy's, which all do the same arithmetic there; else the half's own.
    """
    same = on_cpu and config.training.precision in ("float32", "float64")
    eager = dataclasses.replace(config, training=dataclasses.replace(config.training, execution="eager"))
    found: dict[str, Repeated] = {"products numpy": _numpy_products(config)} if same else {}
    for name, other in (others() if same else {"own": half}).items():
        measures = load_microbenchmarks(other)
        products, adam = measures.matrix_products(eager, costs.products(config)), measures.adam_updates(eager)
        found |= {f"products {name}": products, f"adam {name}": adam}
        found[f"turns {name}"] = _in_turn(products, adam, on_cpu)
        found[f"streaming {name}"] = measures.streaming(eager, elements)
    return found


def _in_turn(products: Repeated, adam: Repeated, on_cpu: bool) -> Repeated:
    """Products, then Adam, as often as there are steps: on a CPU in turn, so that caches are as in a step."""

    def run(repeats: int) -> None:
        for part in [repeats] if not on_cpu else [1] * repeats:
            products(part)
            adam(part)

    return run


def _numpy_products(config: Config) -> Repeated:
    draw, batch, operands = np.random.default_rng(0), config.training.batch_size, []
    for inputs, outputs, needed in costs.products(config):
        shapes = ((batch, inputs), (outputs, inputs), (batch, outputs))
        x, weight, gradient = (draw.random(shape).astype(config.training.dtype) for shape in shapes)
        operands.append((x, weight, gradient, needed))

    def run(repeats: int) -> None:
        for _ in range(repeats):
            for x, weight, gradient, needed in operands:
                _ = x @ weight.T, gradient.T @ x, gradient @ weight if needed else None

    return run
