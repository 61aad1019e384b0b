"""How near a training step comes to what the machine allows.

The floor of a step is its matrix products plus Adam's update; both are measured in the same process
and round as the halves, so that the drift of a shared machine hits all of them alike.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from vae_common import reference
from vae_common.configs import Config, InputError


def matrix_products(config: Config) -> Callable[[], None]:
    """One step's products in NumPy: forward, and both gradients of every layer but the first's input."""
    draw = np.random.default_rng(0)
    batch, dtype = config.training.batch_size, np.dtype(config.training.dtype)

    def random(*shape: int) -> np.ndarray:
        return draw.random(shape).astype(dtype)

    operands = []
    for name, shape in reference.shapes(config).items():
        if name.endswith(".weight"):
            outputs, inputs = shape
            needs_input_gradient = name != "encoder.hidden.0.weight"
            operands.append(
                (random(batch, inputs), random(outputs, inputs), random(batch, outputs), needs_input_gradient)
            )

    def run() -> None:
        for x, weight, gradient, needs_input_gradient in operands:
            _ = x @ weight.T
            _ = gradient.T @ x
            if needs_input_gradient:
                _ = gradient @ weight

    return run


def epoch(half: ModuleType, config: Config, images: np.ndarray) -> Callable[[], None]:
    """One epoch of a half over resident images, waited for, its random numbers drawn beforehand."""
    placed = half.place_images(images, config)
    draws = half.epoch_draws(config, 0, len(images))
    state = half.create_state(config)

    def run() -> None:
        nonlocal state
        state, terms = half.train_epoch(state, placed, draws)
        half.synchronize(terms)

    return run


def step_over_floor(
    halves: Mapping[str, ModuleType], config: Config, adam: Callable[[], None], steps: int, rounds: int
) -> dict[str, Any]:
    """Seconds per step of each half over the floor's, round by round.

    Args:
        adam: one update of Adam over the model's parameters.
        steps: training steps per round.
        rounds: how often everything takes its turn, after one round that is not counted.

    Returns:
        Milliseconds of each part, and per half the ratio `step / floor`: median and quartiles over rounds;
        and where it was measured.
    """
    if steps < 1 or rounds < 2:
        raise InputError(f"steps, rounds: received {steps}, {rounds}; expected >= 1 and >= 2")
    images = np.random.default_rng(0).integers(
        0, 256, (steps * config.training.batch_size, *config.image_shape), np.uint8
    )
    products = matrix_products(config)
    turns: dict[str, tuple[Callable[[], None], int]] = {"products": (products, steps), "adam": (adam, steps)}
    turns |= {name: (epoch(half, config, images), 1) for name, half in halves.items()}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds + 1):
        for name, (run, repeats) in turns.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            seconds[name].append((time.perf_counter() - start) / steps)
    counted = {name: values[1:] for name, values in seconds.items()}
    floor = [p + a for p, a in zip(counted["products"], counted["adam"])]
    return {
        "rounds": rounds,
        "steps_per_round": steps,
        "milliseconds": {name: _spread([1e3 * v for v in values]) for name, values in counted.items()},
        "step_over_floor": {name: _spread([v / f for v, f in zip(counted[name], floor)]) for name in halves},
        "cores": os.cpu_count(),
        "environment": {name: half.environment(config.training.device) for name, half in halves.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}
