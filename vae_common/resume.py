"""Where a stopped run goes on, and with which config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_common.checkpoints import Checkpoint
from vae_common.configs import Config, InputError
from vae_common.runs import Run

ALLOWED = ("--resume", "--framework", "--checkpoint-every", "--epochs", "--device")


def resume_point(folder: Path) -> Checkpoint:
    """Where to go on: the run's checkpoint, or its start if it was stopped before the first one."""
    run = Run(folder)
    if not run.checkpoint_path.exists() and (folder / "config.json").exists():
        record = json.loads((folder / "config.json").read_text())
        return Checkpoint({}, Config.from_json(record["config"]), record["framework"], 0, [])
    return run.checkpoint()


def resumed_config(point: Checkpoint, flags: Sequence[str]) -> Config:
    """The run's own config with the epochs and device of the flags; any other flag is refused."""
    given: dict[str, Any] = {}
    for i, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name.startswith("--") and name.replace("_", "-") not in ALLOWED:
            raise InputError(f"resume: received {name}, expected at most {', '.join(ALLOWED[1:])}")
        if name in ("--epochs", "--device"):
            given[name[2:]] = value or flags[i + 1]
    epochs = int(given.get("epochs", point.config.training.epochs))
    if epochs < point.epoch:
        raise InputError(f"epochs: received {epochs}, but the run has finished {point.epoch}; expected at least that")
    changes = given | {"epochs": epochs}
    return dataclasses.replace(point.config, training=dataclasses.replace(point.config.training, **changes))
