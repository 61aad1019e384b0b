"""Measures how near each half's training step comes to its floor: matrix products plus Adam's update.

python -m scripts.benchmark
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.experiment import load_halves
from vae_common import benchmarks
from vae_common.command_line import run
from vae_common.configs import Config, NetworkConfig, TrainingConfig


@dataclass(frozen=True)
class Arguments:
    """Measures how near each half's training step comes to its floor, both in one process."""

    hidden: tuple[int, ...] = (512,)
    latent_dim: int = 2
    batch_size: int = 128
    steps: int = 60
    """Training steps per round."""
    rounds: int = 21
    """How often products, Adam and both halves take their turns."""
    output: Path | None = None
    """A JSON file for the result."""


def main(arguments: Arguments) -> dict[str, Any]:
    training = TrainingConfig(batch_size=arguments.batch_size, device="cpu")
    config = Config(network=NetworkConfig(arguments.hidden, arguments.latent_dim), training=training)
    halves = load_halves("jax", "torch")
    result = benchmarks.step_over_floor(halves, config, fused_adam(config), arguments.steps, arguments.rounds)
    result |= {"command": ["python", "-m", "scripts.benchmark", *sys.argv[1:]]}
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def fused_adam(config: Config) -> Any:
    """One update by PyTorch's fused Adam, the fastest at hand, over the model's parameters."""
    import torch

    from torch_vae import create_state

    state = create_state(config)
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    return state.optimizer.step


if __name__ == "__main__":
    run(Arguments, main)
