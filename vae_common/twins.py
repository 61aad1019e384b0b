"""Whether a model's two halves have one public face."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from vae_common.configs import Config, InputError
from vae_common.registry import MODELS

CALLS = ("__call__", "forward")  # the forward pass, under its framework's name


def require_twins(halves: Mapping[str, ModuleType], config: Config) -> None:
    """Raises InputError where the halves of the config's model differ in public methods, arguments or parameters."""
    class_name = MODELS[config.model].class_name
    a, b = halves
    faces = {name: _face(getattr(half, class_name)) for name, half in halves.items()}
    _require_same(f"model {config.model}: methods of {class_name}", a, b, faces[a], faces[b])
    shapes = {name: half.parameter_shapes(half.create_model(config)) for name, half in halves.items()}
    _require_same(f"model {config.model}: parameters", a, b, shapes[a], shapes[b])


def _require_same(what: str, a: str, b: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    for name in sorted(set(first) | set(second)):
        if first.get(name) != second.get(name):
            said = f"{name} {first.get(name, 'missing')} in {a} and {second.get(name, 'missing')} in {b}"
            raise InputError(f"{what}: received {said}, expected the same in both halves")


def _face(of: type) -> dict[str, list[str]]:
    """Public methods, the constructor and the forward pass, with their arguments."""
    methods = {name: value for name, value in vars(of).items() if inspect.isfunction(value)}
    named = {"forward pass" if name in CALLS else name: value for name, value in methods.items()}
    return {
        name: [f"{p.name}={p.default}" if p.default is not p.empty else p.name for p in _arguments(value)]
        for name, value in named.items()
        if name == "__init__" or not name.startswith("_")
    }


def _arguments(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())
