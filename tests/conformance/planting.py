"""How a fault is planted in one half at run time; model_faults.py, training_faults.py and option_faults.py have the
kinds, faults.py the faults.

A fault is a function that gets the half and its array functions, and returns what to put in place of what.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from vae_common.conformance.engine.faults import Patches, patched


@dataclass(frozen=True)
class Fault:
    """What is wrong, how to plant it, and where it has to show."""

    name: str
    tier: str
    plant: Callable[[ModuleType, SimpleNamespace], Patches]
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments of `tiny_config` that the fault needs."""
    both: bool = False
    """Whether it is planted in both halves at once, too: only an oracle notices then."""


def functions(half: ModuleType) -> SimpleNamespace:
    """The array functions of a half's framework that the faults below are written with."""
    if half.__name__ == "jax_vae":
        import jax
        import jax.numpy as jnp

        detach, roll, call = jax.lax.stop_gradient, lambda x: jnp.roll(x, 1, 0), "__call__"
        return SimpleNamespace(
            exp=jnp.exp, log=jnp.log, sigmoid=jax.nn.sigmoid, clip=jnp.clip, tanh=jnp.tanh,
            detach=detach, roll=roll, call=call, jax=True, leaves=jax.tree.leaves, map=jax.tree.map, jit=jax.jit,
        )  # fmt: skip
    import torch

    return SimpleNamespace(
        exp=torch.exp, log=torch.log, sigmoid=torch.sigmoid, clip=torch.clip, tanh=torch.tanh,
        detach=lambda x: x.detach(), roll=lambda x: torch.roll(x, 1, 0), call="forward", jax=False,
        leaves=lambda tree: tree.values(), map=lambda function, tree: {k: function(v) for k, v in tree.items()},
    )  # fmt: skip


@contextlib.contextmanager
def planted(fault: Fault, half: ModuleType) -> Iterator[None]:
    """The fault in that half while the block runs; compiled programs are forgotten before and after."""
    try:
        with patched(fault.plant(half, functions(half))):
            forget_programs(half)
            yield
    finally:
        forget_programs(half)


def forget_programs(half: ModuleType) -> None:
    """Makes jitted functions trace again; PyTorch's are eager."""
    for module in (half.state, half.step, half.execution, half.inference):
        for value in vars(module).values():
            if hasattr(value, "clear_cache"):
                value.clear_cache()
    if hasattr(half.models.empty_model, "cache_clear"):
        half.models.empty_model.cache_clear()
