"""What a training step is held against: products, Adam and streaming, by every library at hand."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np

from vae_common import costs
from vae_common.configs import Config

Run = Callable[[int], None]
"""Runs that many times, and waits."""


def candidates(
    half: ModuleType, others: Callable[[], Mapping[str, ModuleType]], config: Config, elements: int, on_cpu: bool
) -> dict[str, Run]:
    """By kind and library, `products torch`: a step's products, Adam, the two in turn, streaming over `elements`.

    On a CPU every half's and NumPy's, which all do the same arithmetic there; else the half's own.
    """
    same = on_cpu and config.training.precision in ("float32", "float64")
    eager = dataclasses.replace(config, training=dataclasses.replace(config.training, execution="eager"))
    found: dict[str, Run] = {"products numpy": _numpy_products(config)} if same else {}
    for name, other in (others() if same else {"own": half}).items():
        products, adam = measures(other).matrix_products(eager), measures(other).adam_updates(eager)
        found |= {f"products {name}": products, f"adam {name}": adam}
        found[f"turns {name}"] = _in_turn(products, adam, on_cpu)
        found[f"streaming {name}"] = measures(other).streaming(eager, elements)
    return found


def measures(half: ModuleType) -> ModuleType:
    """A half's measures.py, which its package does not import by itself."""
    return importlib.import_module(f"{half.__name__}.measures")


def _in_turn(products: Run, adam: Run, on_cpu: bool) -> Run:
    """Products, then Adam, as often as there are steps: on a CPU in turn, so that caches are as in a step."""

    def run(repeats: int) -> None:
        for part in [repeats] if not on_cpu else [1] * repeats:
            products(part)
            adam(part)

    return run


def _numpy_products(config: Config) -> Run:
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
