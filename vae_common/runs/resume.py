"""With which config a stopped run goes on, and whether a folder holds the run that is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_common.config import Config, DataConfig
from vae_common.errors import InputError
from vae_common.runs.checkpoints import Checkpoint
from vae_common.runs.folder import Run

PLACES = ("dataset", "data_dir", "manual_dir")
"""Fields of a config that say where its data are; whether they are the same is for their fingerprint to say."""


def begun(folder: Path, config: Config, apart: Sequence[str] = ()) -> Checkpoint | None:
    """Where a run of this config goes on; None where its folder holds nothing to go on from.

    InputError where the folder holds another experiment's: one that differs in more than device, execution, the data's
    place, and the fields of its training that are set `apart`.
    """
    if not Run(folder).is_begun:
        return None
    point = Run(folder).resume_point()
    training: Any = {name: getattr(config.training, name) for name in ("device", "execution", *apart)}
    there = dataclasses.replace(
        point.config,
        training=dataclasses.replace(point.config.training, **training),
        data=dataclasses.replace(point.config.data, **{name: getattr(config.data, name) for name in PLACES}),
    )
    if there != config:
        raise InputError(f"output: {folder} holds another experiment than this one; choose another --output")
    return point


def resumed_config(point: Checkpoint, data: DataConfig, **changes: Any) -> Config:
    """The run's own config with its data where they are now, and other epochs, device or execution; None leaves what it
    has."""
    given = {name: value for name, value in changes.items() if value is not None}
    training = dataclasses.replace(point.config.training, **given)
    begun = point.epoch + (point.terms is not None)
    if training.epochs < begun:
        how = "is in epoch" if point.terms is not None else "has finished"
        raise InputError(f"epochs: received {training.epochs}, but the run {how} {begun}; expected at least that")
    return dataclasses.replace(point.config, training=training, data=data)
