"""The suites of a benchmark: which cases each of them has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from vae_common.benchmark.cases import Case
from vae_common.benchmark.results import PRECISION_EPOCHS
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, TrainingConfig

SUITES = ("quick", "network", "recipe", "peers", "full", "accelerator")
BATCH_SIZES = (32, 128, 512, 2048, 8192)
RECIPE: dict[str, Any] = {"hidden": (400,), "latent_dim": 20, "kind": "epoch"}
GROWTH: dict[str, tuple[Any, ...]] = {
    "images": (1024, 4096, 16384, 60000, 600000),
    "hidden": ((64,), (128,), (256,), (512,), (1024,), (2048,)),
    "latent_dim": (2, 8, 32, 128, 512),
    "ensemble": (1, 2, 4, 8, 16),
}
LOSS_EPOCHS, LOSS_SEEDS = 10, 3
"""Of the trainings whose test loss is held against seconds."""
SOFTPLUS: dict[str, Any] = {"hidden": (400,), "latent_dim": 50, "activation": "softplus"}
PEER_IMAGES = 468 * 128
"""Of an epoch: MNIST's, but for the batch that would not be whole, which not all peers leave out."""
PEER_EXPERIMENTS = (
    (("numpyro",), Config(network=NetworkConfig(**SOFTPLUS), data=DataConfig(binarization="dynamic"))),
    (
        ("recipe", "flax recipe", "keras on jax", "keras on torch", "pythae"),
        Config(network=NetworkConfig((400,), latent_dim=20)),
    ),
)
"""Peers, and the experiment that each of them and both halves train."""
_RESIDUAL: dict[str, Any] = {"block_channels": (40, 80), "norm_groups": 8, "activation": "silu"}
RESIDUAL = Config(
    "kl_autoencoder",
    image_shape=(32, 32, 3),
    network=NetworkConfig(**_RESIDUAL),
    loss=LossConfig(reconstruction="linear_gaussian"),
    training=TrainingConfig(batch_size=32),
)
GROWTH_IMAGES = 7680
"""Of an epoch where something else grows."""


def cases_of(suite: str, base: Case, variants: Sequence[tuple[str, str]], gpu: bool) -> list[Case]:
    """A suite's cases, in the order in which they are measured; one of SUITES.

    `variants` are the halves and how PyTorch runs its steps.
    """
    if suite in ("full", "accelerator"):
        return {"full": full, "accelerator": accelerator}[suite](base, variants, gpu)
    return {"quick": quick, "network": network, "recipe": recipe, "peers": with_peers}[suite](base, variants)


def quick(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """A step of each variant over its floor, and short epochs against the recipe's."""
    cases = [dataclasses.replace(base, framework=f, execution=e) for f, e in variants]
    return cases + _recipe(base, variants, images=6400, rounds=3)


def network(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """One network alone: starts, cold and with programs kept, whole epochs, steps."""
    return [
        dataclasses.replace(base, framework=f, execution=e, kind=kind)
        for f, e in variants
        for kind in ("network", "warm")
    ]


def with_peers(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """Whole epochs of PEER_IMAGES beside those of what a user would pick instead, on the same networks."""
    cases = []
    for names, config in PEER_EXPERIMENTS:
        own = Case.of(config, kind="epoch", images=PEER_IMAGES, rounds=base.rounds, device=base.device)
        cases += [dataclasses.replace(own, framework=f, execution=e) for f, e in variants]
        cases += [dataclasses.replace(own, framework=name, execution="auto") for name in names]
    return cases


def accelerator(base: Case, variants: Sequence[tuple[str, str]], gpu: bool) -> list[Case]:
    """What ten minutes on an accelerator are for: steps of two batch sizes, the larger in each precision, starts, many
    seeds, a residual model, whole epochs."""
    fastest = [next(v for v in variants if v[0] == name) for name in dict.fromkeys(f for f, _ in variants)]

    def each(chosen: Sequence[tuple[str, str]] = fastest, **changes: Any) -> list[Case]:
        return [dataclasses.replace(base, framework=f, execution=e, **changes) for f, e in chosen]

    cases = each(variants)
    for precision in ("float32", *(("tf32",) if gpu else ()), "bfloat16"):
        cases += each(precision=precision, batch_size=8192)
    cases += each(precision="tf32") if gpu else []
    cases += each(ensemble=16) + each(kind="epoch", images=60000, rounds=3)
    residual = Case.of(RESIDUAL, kind="network", device=base.device, rounds=base.rounds)
    return cases + [dataclasses.replace(residual, framework=f, execution=e) for f, e in fastest]


def recipe(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """Whole epochs of 60,000 images against the recipe's."""
    return _recipe(base, variants, images=60000, rounds=3)


def full(base: Case, variants: Sequence[tuple[str, str]], gpu: bool) -> list[Case]:
    """Batch sizes, precisions, models, seeds, the recipe, test loss against seconds, and growth."""

    def each(chosen: Sequence[tuple[str, str]] = variants, **changes: Any) -> list[Case]:
        return [dataclasses.replace(base, framework=f, execution=e, **changes) for f, e in chosen]

    jax_eager = [(f, "eager") for f in dict(variants) if f == "jax"]
    first = [next(v for v in variants if v[0] == name) for name in dict.fromkeys(f for f, _ in variants)]
    cases = each()
    for batch in BATCH_SIZES:
        cases += each([*variants, *jax_eager], batch_size=batch) if batch != base.batch_size else []
    cases += each(jax_eager)
    for precision in ("float64", "bfloat16", *(("tf32",) if gpu else ())):
        for batch in (base.batch_size, 8192) if gpu else (base.batch_size,):
            cases += each(precision=precision, batch_size=batch)
    for precision in ("float32", "float64", "bfloat16", *(("tf32",) if gpu else ())):
        cases += each(first, kind="loss", precision=precision, epochs=PRECISION_EPOCHS, dataset="digits")
    cases += each(model="ae")
    cases += each(ensemble=4) + each(ensemble=16)
    cases += recipe(base, variants)
    for seed in range(LOSS_SEEDS):
        cases += each(kind="loss", epochs=LOSS_EPOCHS, seed=seed)
    cases += each(kind="warm")
    for field, values in GROWTH.items():
        for value in values:
            images = value if field == "images" else GROWTH_IMAGES
            changes = {"images": images, field: value}
            cases += each(first, kind="epoch", rounds=1 if images > 60000 else 3, **changes)
    return cases


def _recipe(base: Case, variants: Sequence[tuple[str, str]], images: int, rounds: int) -> list[Case]:
    kinds = [*variants, *(("recipe", "eager") for f in dict(variants) if f == "torch")]
    return [
        dataclasses.replace(base, framework=f, execution=e, images=images, rounds=rounds, **RECIPE) for f, e in kinds
    ]
