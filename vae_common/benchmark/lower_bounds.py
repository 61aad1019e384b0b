"""What a training step is held against: products, Adam and streaming, by every library at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from vae_common.backend import Half, Halves, Repeated, load_microbenchmarks
from vae_common.benchmark import costs
from vae_common.config import Config
from vae_common.config.parts import Execution


@dataclasses.dataclass(frozen=True)
class Bound:
    """One library's measurement of what a step cannot go below."""

    kind: str
    """products, adam, turns (the two of them in turn), or streaming."""
    library: str
    run: Repeated
    rest: float = 0.0
    """Seconds that its library's threads go on spinning, and disturb the next."""


NUMPY_RESTS = 0.15


def bounds(half: Half, others: Callable[[], Halves], config: Config, elements: int, on_cpu: bool) -> list[Bound]:
    """A step's products, Adam, the two in turn, and streaming over `elements`.

    On a CPU by every half and by NumPy, which all do the same arithmetic there; else by the half alone, from programs
    or graphs: an eager step's launches are no bound.
    """
    same = on_cpu and config.training.precision in ("float32", "float64")
    execution: Execution = "eager" if on_cpu else "compile" if config.training.execution == "compile" else "auto"
    alone = dataclasses.replace(config, training=dataclasses.replace(config.training, execution=execution))
    found = [Bound("products", "numpy", _numpy_products(config), NUMPY_RESTS)] if same else []
    for name, other in (others() if same else {"own": half}).items():
        measured = load_microbenchmarks(other)
        found += [
            Bound("products", name, measured.matrix_products(alone, costs.products(config))),
            Bound("adam", name, measured.adam_updates(alone)),
            Bound("turns", name, measured.products_and_adam(alone, costs.products(config))),
            Bound("streaming", name, measured.streaming(alone, elements)),
        ]
    return found


def _numpy_products(config: Config) -> Repeated:
    rng, batch, operands = np.random.default_rng(0), config.training.batch_size, []
    for inputs, outputs, needed in costs.products(config):
        shapes = ((batch, inputs), (outputs, inputs), (batch, outputs))
        x, weight, gradient = (rng.random(shape).astype(config.training.dtype) for shape in shapes)
        operands.append((x, weight, gradient, needed))

    def run(repeats: int) -> None:
        for _ in range(repeats):
            for x, weight, gradient, needed in operands:
                _ = x @ weight.T, gradient.T @ x, gradient @ weight if needed else None

    return run
