"""What two implementations of one model may differ by, as measured."""

from __future__ import annotations

import numpy as np

from vae_common.config import Config

TOLERANCES: dict[str, dict[str, float]] = {
    "float64": {
        "operation": 1e-13, "loss": 1e-12, "kl": 1e-12, "tensor": 1e-12, "gradient": 1e-12, "adam": 1e-11,
        "step": 1e-8, "lockstep_loss": 1e-11, "lockstep_kl": 1e-10, "lockstep_parameters": 1e-7,
        "epoch_update": 3e-10,
    },
    "float32": {
        "operation": 5e-6, "loss": 2e-6, "kl": 5e-6, "tensor": 1e-5, "gradient": 2e-5, "adam": 2e-5, "step": 8e-4,
    },
}  # fmt: skip


def lockstep_tolerances(config: Config, steps: int) -> dict[str, np.ndarray]:
    """T5's limits per step, of every term that the experiment has; float32 is not gated on parameters, nor on anything
    beyond 100 steps."""
    dtype = config.training.dtype
    if dtype == "float64":
        limits = TOLERANCES[dtype]
        loss, kl = np.full(steps, limits["lockstep_loss"]), np.full(steps, limits["lockstep_kl"])
        parameters = {"parameters": np.full(steps, limits["lockstep_parameters"])}
    else:
        early, late = np.arange(steps) < 10, np.arange(steps) < 100
        loss = np.where(early, 1e-4, np.where(late, 3e-3, np.inf))
        kl = np.where(early, 5e-4, np.where(late, 3e-2, np.inf))
        parameters = {}
    losses = ("total", "reconstruction", "objective")
    return {name: loss if name in losses else kl for name in config.term_names} | parameters
