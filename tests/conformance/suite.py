"""What the conformance tests share: small configs, and the verdict on a list of checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tests.configs import own_fields
from tests.conftest import HALVES
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, TrainingConfig
from vae_common.conformance.checks import TIERS
from vae_common.conformance.engine.checks import Check

EROSION = 0.3
"""In float64 a check that uses more than this share of its tolerance fails: the tolerance is eroding."""

LOSSES = {
    "bernoulli": LossConfig(),
    "beta": LossConfig(beta=12.5),
    "squared": LossConfig(reconstruction="squared_error"),
    "tutorial": LossConfig(reconstruction="squared_error", kl="tutorial", reduction="sum"),
}


IMAGES = 60
"""That the small configs are trained on."""
TINY = {
    "hidden": (12, 12),
    "latent_dim": 3,
    "top_hidden": (7,),
    "top_dim": 2,
    "codes": 5,
    "components": 4,
    "ladder_layers": 3,
    "ladder_width": 7,
    "ladder_hidden": 6,
    "block_channels": (4, 6),
    "latent_channels": 2,
    "norm_groups": 2,
}


def tiny_config(
    model: str = "vae",
    loss: str = "bernoulli",
    dtype: str = "float64",
    options: dict | None = None,
    image_shape: tuple[int, int, int] = (6, 4, 3),
    **network,
) -> Config:
    """Colour images of 6x4, a square layer and a one-wide one: shapes that hide nothing.

    `options` changes fields of the config's parts: {"loss": {"samples": 3}}.
    """
    config = Config(
        model=model,
        image_shape=image_shape,
        network=NetworkConfig(**own_fields(model, TINY | network)),
        loss=LOSSES[loss],
        data=DataConfig(binarization="dynamic"),
        training=TrainingConfig(precision=dtype, batch_size=9),
    )
    changed = {part: replace(getattr(config, part), **of) for part, of in (options or {}).items()}
    return replace(config, train_images=IMAGES, **changed)


def few_at_a_time(monkeypatch) -> None:
    """Inference in small batches, so that more than one of them takes little."""
    for half in HALVES.values():
        monkeypatch.setattr(half, "INFERENCE_BATCH", 20)
        monkeypatch.setattr(half.inference, "INFERENCE_BATCH", 20)


def with_likelihood(config: Config, **changes) -> Config:
    return replace(config, loss=replace(config.loss, **changes))


def images_for(config: Config, count: int = IMAGES) -> np.ndarray:
    """Half structure, half noise, uint8, every value from 0 to 255."""
    height, width, channels = config.image_shape
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, 200, height * width * channels).reshape(height, width, channels)
    noisy = ramp * rng.random((count, 1, 1, 1)) + rng.integers(0, 56, (count, height, width, channels))
    images = noisy.astype(np.uint8)
    images.flat[:256] = np.arange(256)
    return images


def failing_tiers(checks: Iterable[Check]) -> dict[str, Check]:
    """Tier -> its worst failing check. Raises where a tier was not checked at all."""
    by_tier: dict[str, list[Check]] = defaultdict(list)
    for check in checks:
        by_tier[check.tier].append(check)
    missing = [tier for tier in TIERS if not by_tier[tier]]
    assert not missing, f"tiers {missing} compared nothing"
    worst = {tier: max(found, key=lambda check: check.ratio) for tier, found in by_tier.items()}
    return {tier: worst[tier] for tier in TIERS if not worst[tier].passed}


USED: dict[str, dict[str, float]] = {}
"""dtype -> tier -> the largest share of a tolerance that a check used, in this process."""


def note_use(checks: Iterable[Check], dtype: str) -> None:
    """Keeps the largest share of a tolerance that each tier used."""
    used = USED.setdefault(dtype, {})
    for check in checks:
        used[check.tier] = max(used.get(check.tier, 0.0), check.ratio)


def assert_conformant(checks: Iterable[Check], dtype: str) -> None:
    """Every tier compared something, nothing exceeds its tolerance, and in float64 nothing comes near it."""
    checks = list(checks)
    failed = failing_tiers(checks)
    assert not failed, failed
    note_use(checks, dtype)
    assert not eroded(checks, dtype)


def eroded(checks: Iterable[Check], dtype: str) -> list[str]:
    """In float64, what uses more of its tolerance than it may, the worst first.

    Not asked in the extreme state between the halves alone: where a reference knows the model each is held against it.
    """
    checks = list(checks)
    has_oracle = any("reference" in check.where for check in checks if check.tier == "T3")
    worn = [check for check in checks if check.ratio > EROSION and (has_oracle or "extreme" not in check.where)]
    said = [
        f"{check.tier}: {check.name} uses {check.ratio:.2g} of its tolerance, {EROSION} allowed"
        for check in sorted(worn, key=lambda check: -check.ratio)
    ]
    return said if dtype == "float64" else []
