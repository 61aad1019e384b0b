"""Trains a list of configs in both halves and hashes what comes out: equal hashes before and after a change show that
no number has moved. python -m scripts.weight_hashes --output hashes.json

Hashes are of one machine, its instruction set and its versions: compare those that one machine made.
"""

from __future__ import annotations

import hashlib
import sys
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.backend import Framework, load_halves
from vae_common.cli.command_line import run_command
from vae_common.config import (
    PRESETS,
    Config,
    DataConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainingConfig,
)
from vae_common.config.parts import Activation, Binarization, Reconstruction
from vae_common.config.registry import MODELS
from vae_common.data import datasets
from vae_common.data.splits import Split

IMAGES, BATCH, EPOCHS = 200, 20, 2


@dataclass(frozen=True)
class Arguments:
    """Trains a list of configs in both halves and hashes weights and moments."""

    frameworks: tuple[Framework, ...] = ("jax", "torch")
    output: Path | None = None
    """Where the hashes go as JSON; by default they are only printed."""


def configs() -> dict[str, Config]:
    """By name: every model, objective, likelihood, activation, schedule, and what changes the draws."""
    small = NetworkConfig(hidden=(24,), latent_dim=3)
    above: dict[str, Any] = {"top_hidden": (5,), "top_dim": 2}
    tiny = Config("two_layer_vae", network=NetworkConfig(hidden=(12,), **above))
    likelihoods = typing.get_args(Reconstruction)
    found = {name: tiny.of_model(name) for name in MODELS}
    found |= {f"vae {name}": Config(network=small, loss=LossConfig(reconstruction=name)) for name in likelihoods}
    for objective in ("iwae", "dreg"):
        found[objective] = Config(network=small, loss=LossConfig(objective=objective, samples=3))
    found["vae, sampled kl, sum"] = Config(network=small, loss=LossConfig(kl="sampled", samples=2, reduction="sum"))
    found["tutorial"] = replace(PRESETS["tutorial"], network=small, data=DataConfig())
    found["free bits, warm-up"] = Config(network=small, loss=LossConfig(free_bits=0.1, kl_warmup=7, beta=2.0))
    for name in typing.get_args(Activation):
        found[f"convolutions, {name}"] = Config(
            network=NetworkConfig(channels=(4, 8), hidden=(16,), activation=name, classes=10)
        )
    for binarization in typing.get_args(Binarization):
        found[binarization] = Config(network=small, data=DataConfig(binarization=binarization))
    native = TrainingConfig(randomness="native")
    found["native"] = Config(network=small, training=native, data=DataConfig(binarization="dynamic"))
    cosine = OptimizerConfig(schedule="cosine", warmup_steps=5, clip_norm=1.0, average=0.9, second_moment_start=0.1)
    found["cosine, clipped, averaged"] = Config(network=small, optimizer=cosine)
    found["exponential"] = Config(network=small, optimizer=OptimizerConfig(schedule="exponential", decay_steps=9))
    head = NetworkConfig(
        hidden=(24,), initializer="lecun_normal", posterior_head="log_variance", output_bias="data_mean"
    )
    found["log-variance head, mean bias"] = Config(network=head)
    return found


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    digits = datasets.load("digits")
    test = Split(digits.test.images[:BATCH], digits.test.labels[:BATCH])
    train = Split(digits.train.images[:IMAGES], digits.train.labels[:IMAGES])
    dataset = replace(digits, train=train, test=test)
    halves = load_halves(*arguments.frameworks, program_cache=False)
    hashes = {}
    for name, config in configs().items():
        for precision in ("float64", "float32"):
            training = replace(config.training, precision=precision, batch_size=BATCH, epochs=EPOCHS)
            own = replace(config, training=training)
            for framework, half in halves.items():
                arrays = half.state_to_arrays(half.fit(half.create_state(own, train.images), dataset))
                digest = hashlib.sha256()
                for key in sorted(arrays):
                    digest.update(key.encode() + arrays[key].tobytes())
                hashes[f"{name}, {precision}, {framework}"] = digest.hexdigest()[:16]
    if arguments.output is not None:
        files.write_json(arguments.output, hashes)
    return hashes


if __name__ == "__main__":
    run_command(sys.modules[__name__])
