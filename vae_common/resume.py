"""Where a stopped run goes on, and with which config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_common.checkpoints import Checkpoint
from vae_common.command_line import value_of
from vae_common.configs import Config, InputError
from vae_common.runs import Run

RUN = ("--resume", "--framework", "--checkpoint-every", "--program-cache", "--no-program-cache")
ALLOWED = (*RUN, "--epochs", "--device", "--execution")


def resume_point(folder: Path) -> Checkpoint:
    """Where to go on: the run's checkpoint, or its start if it was stopped before the first one."""
    run, described = Run(folder), folder / "config.json"
    if run.checkpoint_path.exists() or not described.exists():
        return run.checkpoint()
    try:
        record = json.loads(described.read_text())
        return Checkpoint({}, Config.from_json(record["config"]), record["framework"], 0, [], record["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"resume: {described} is damaged ({error!r}); start the run anew") from error


def begun(folder: Path, config: Config, apart: Sequence[str] = ()) -> Checkpoint | None:
    """Where a run of this config goes on; None where its folder holds nothing to go on from.

    InputError where the folder holds another experiment's: one that differs in more than device, execution, the data's
    place, and the fields of its training that are set `apart`.
    """
    if not (Run(folder).checkpoint_path.exists() or (folder / "config.json").exists()):
        return None
    point = resume_point(folder)
    training: Any = {name: getattr(config.training, name) for name in ("device", "execution", *apart)}
    there = dataclasses.replace(
        point.config,
        training=dataclasses.replace(point.config.training, **training),
        data=dataclasses.replace(point.config.data, data_dir=config.data.data_dir, manual_dir=config.data.manual_dir),
    )
    if there != config:
        raise InputError(f"output: {folder} holds another experiment than this one; choose another --output")
    return point


def resumed_config(point: Checkpoint, flags: Sequence[str]) -> Config:
    """The run's own config with the epochs and device of the flags; any other flag is refused."""
    for flag in flags:
        name = flag.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in ALLOWED:
            raise InputError(f"resume: received {name}, expected at most {', '.join(ALLOWED[1:])}")
    training = point.config.training
    epochs = int(value_of("--epochs", flags) or training.epochs)
    if epochs < point.epoch:
        raise InputError(f"epochs: received {epochs}, but the run has finished {point.epoch}; expected at least that")
    device: Any = value_of("--device", flags) or training.device
    execution: Any = value_of("--execution", flags) or training.execution
    training = dataclasses.replace(training, epochs=epochs, device=device, execution=execution)
    return dataclasses.replace(point.config, training=training)
