"""A run's losses as TensorBoard reads them."""

from __future__ import annotations

import importlib.util

from vae_common.errors import InputError
from vae_common.runs.folder import Run


def require() -> None:
    """Raises InputError where tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError("tensorboard: received no tensorboardX; install it: pip install tensorboardX")


def write(run: Run) -> None:
    """Every epoch's losses of a run, by step, into its folder."""
    require()
    from tensorboardX import SummaryWriter

    stale = list(run.folder.glob("events.out.tfevents.*"))
    with SummaryWriter(str(run.folder)) as writer:
        for record in run.checkpoint().history:
            for split in ("train", "validation", "test"):
                for term, value in record.get(split, {}).items():
                    writer.add_scalar(f"{split}/{term}", value, record["step"])
            writer.add_scalar("images_per_second", record["images_per_second"], record["step"])
    for earlier in stale:  # only now that what replaces them is whole
        earlier.unlink()
