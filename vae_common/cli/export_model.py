"""Writes a run's kl_autoencoder as diffusers' AutoencoderKL.from_pretrained reads it.

twin-vae export runs/vae --output vae-for-diffusers
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from vae_common import files
from vae_common.config.checks import is_rate
from vae_common.errors import InputError, require


@dataclass(frozen=True)
class Arguments:
    """Writes a run's kl_autoencoder as diffusers reads it."""

    run: tyro.conf.Positional[Path | None] = None
    """The run's folder."""
    output: Path | None = None
    """A new folder, for config.json and diffusion_pytorch_model.safetensors."""
    scaling_factor: float | None = None
    """What pipelines multiply latents by, 1 over their standard deviation; by default what was imported, else
    diffusers' own 0.18215."""


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.runs import diffusers
    from vae_common.runs.folder import Run, new_folder

    if arguments.run is None or arguments.output is None:
        raise InputError("export: received no run or no output, expected twin-vae export RUN --output FOLDER")
    run = Run(arguments.run)
    checkpoint = run.checkpoint()
    kept = run.folder / diffusers.CARRIED_FILE
    carried = files.read_json(kept, "what an import kept") if kept.exists() else {}
    require(
        isinstance(carried, dict) and set(carried) <= set(diffusers.CARRIED), str(kept), carried, "what import wrote"
    )
    if arguments.scaling_factor is not None:
        valid = is_rate(arguments.scaling_factor) and arguments.scaling_factor > 0
        require(valid, "scaling_factor", arguments.scaling_factor, "a number above 0")
        carried["scaling_factor"] = arguments.scaling_factor
    diffusers.settings_of(checkpoint.config, carried)  # refused before anything is made
    folder = new_folder(arguments.output, "")
    diffusers.write(folder, checkpoint.config, checkpoint.weights, carried)
    return {"folder": str(folder), "epoch": checkpoint.epoch, **carried}
