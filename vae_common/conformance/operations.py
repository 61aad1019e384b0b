"""T1: preparing images, every activation, pixel means and loss terms, on ordinary and on saturated inputs."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import numpy as np

from vae_common import reference
from vae_common.backend import Half, Halves
from vae_common.config import Config
from vae_common.config.parts import Activation
from vae_common.conformance.engine.checks import Check, array_checks
from vae_common.conformance.tolerances import TOLERANCES
from vae_common.contracts import Outputs, Posterior, StochasticLayer, map_arrays

LOSS_CASES = 3
"""Each a case of its own, so that what is large does not hide what is small."""
SHAPE, LATENTS = (8, 3, 2, 1), (8, 5)
SATURATED = 500.0
"""A logit whose probability rounds to 0 or 1."""


def operation_checks(halves: Halves, config: Config) -> Iterator[Check]:
    """Each half's operations against the reference's, on the same inputs."""
    inputs = _Inputs(config.training.dtype)
    expected = _by_reference(config, inputs)
    tolerance = TOLERANCES[config.training.dtype]["operation"]
    for name, half in halves.items():
        found = _by_half(half, config, inputs)
        yield from array_checks("T1", f"{name} against reference", found, expected, tolerance)


class _Inputs:
    """What the operations are tried on; equal for everyone."""

    def __init__(self, dtype: str):
        rng = np.random.default_rng(0)
        self.pixels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
        near = self.pixels.astype(int) + rng.integers(-1, 2, self.pixels.shape)  # equality has to count as below
        self.thresholds = near.clip(0, 254).astype(np.uint8)
        self.x = np.concatenate([rng.normal(size=400), np.linspace(-40, 40, 321), [-100, 100]]).astype(dtype)
        logits = [rng.normal(size=SHAPE) * 3, np.full(SHAPE, -SATURATED), np.full(SHAPE, SATURATED)]
        targets = [rng.random(SHAPE), rng.random(SHAPE) > 0.5, rng.random(SHAPE)]
        means = [rng.normal(size=LATENTS) * scale for scale in (1, 0, 30)]
        near_one = rng.normal(size=LATENTS)
        log_stds = [near_one, np.linspace(-14, -1, 40).reshape(LATENTS), np.linspace(1, 8, 40).reshape(LATENTS)]
        scales = [rng.normal(size=(8, 1, 1, 1)) + offset for offset in (-2, -7, 3)]
        noises = rng.normal(size=(LOSS_CASES, *LATENTS))
        self.outputs: list[Outputs] = []
        self.targets = [target.astype(dtype) for target in targets]
        for case in range(LOSS_CASES):
            mean, log_std, noise = (a[case].astype(dtype) for a in (means, log_stds, noises))
            latents = (mean + np.exp(log_std) * noise).astype(dtype)
            logit, scale = logits[case].astype(dtype), scales[case].astype(dtype)
            layer = StochasticLayer(Posterior(mean, log_std), None, latents, noise)
            self.outputs.append(Outputs(logit, latents, (layer,), scale))


def _by_half(half: Half, config: Config, inputs: _Inputs) -> dict[str, np.ndarray]:
    """What one half makes of them."""
    device = half.select_device(config.training.device)

    def put(array: np.ndarray) -> Any:
        return half.to_device(array, device)

    with half.precision(config.training.dtype):
        x = put(inputs.x)
        found = {
            "images": half.prepare_images(put(inputs.pixels), None, x.dtype),
            "binarized": half.prepare_images(put(inputs.pixels), put(inputs.thresholds), x.dtype),
            "pixel means": half.pixel_means(x, config.loss.reconstruction),
        }
        found |= {f"activation {name}": function(x) for name, function in half.ACTIVATIONS.items()}
        for case, (outputs, target) in enumerate(zip(inputs.outputs, inputs.targets)):
            terms = half.loss_terms(config.loss, map_arrays(put, outputs), put(target))
            found |= {f"{term} {case}": value for term, value in terms.named().items()}
    return {name: half.to_numpy(value) for name, value in found.items()}


def _by_reference(config: Config, inputs: _Inputs) -> dict[str, np.ndarray]:
    """What they should be, in float64."""
    x = inputs.x.astype(np.float64)
    expected = {
        "images": inputs.pixels / 255,
        "binarized": (inputs.pixels > inputs.thresholds).astype(np.float64),
        "pixel means": reference.pixel_means(x, config.loss.reconstruction),
    }
    expected |= {f"activation {name}": reference.activate(name, x) for name in typing.get_args(Activation)}
    for case, (outputs, target) in enumerate(zip(inputs.outputs, inputs.targets)):
        exact = map_arrays(lambda array: array.astype(np.float64), outputs)
        terms = reference.loss_terms(config.loss, exact, target.astype(np.float64))
        expected |= {f"{term} {case}": value for term, value in terms.named().items()}
    return expected
