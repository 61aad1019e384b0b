"""How a fault is planted in one half at run time; model_changes.py and run_changes.py have the
kinds, faults.py the faults.

A fault is a function that gets the half and its array functions, and returns what to put in place of
what: `{(object, attribute): replacement}`. Objects are modules, classes and dicts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

Patches = list[tuple[Any, str, Any]]


@dataclass(frozen=True)
class Fault:
    """What is wrong, how to plant it, and where it has to show."""

    name: str
    tier: str
    plant: Callable[[ModuleType, SimpleNamespace], Patches]
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments of `tiny_config` that the fault needs."""


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
    originals: Patches = []
    try:
        for owner, name, value in fault.plant(half, functions(half)):
            originals.append((owner, name, _get(owner, name)))
            _set(owner, name, value)
        forget_programs(half)
        yield
    finally:
        for owner, name, value in reversed(originals):
            _set(owner, name, value)
        forget_programs(half)


def forget_programs(half: ModuleType) -> None:
    """Makes jitted functions trace again; PyTorch's are eager."""
    for module in (half.training, half.execution, half.inference):
        for value in vars(module).values():
            if hasattr(value, "clear_cache"):
                value.clear_cache()
    if hasattr(half.models.empty_model, "cache_clear"):
        half.models.empty_model.cache_clear()


def _get(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


def everywhere(half: ModuleType, name: str, value: Any) -> Patches:
    """A public function replaced in every module that holds it."""
    modules = [half, *(module for module in vars(half).values() if isinstance(module, ModuleType))]
    return [(module, name, value) for module in modules if hasattr(module, name)]
