"""Whether a model's two halves have one public face."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from vae_common.backend import Halves
from vae_common.config import Config
from vae_common.config.registry import MODELS
from vae_common.errors import InputError

CALLS = ("__call__", "forward")  # the forward pass, under its framework's name


def require_same_signatures(halves: Halves, config: Config) -> None:
    """Raises InputError where the halves of the config's model differ in public methods, arguments or parameters."""
    class_name = MODELS[config.model].class_name
    a, b = halves
    models = {name: half.create_model(config) for name, half in halves.items()}
    faces = {name: _signatures(type(model)) for name, model in models.items()}
    _require_same(f"model {config.model}: methods of {class_name}", a, b, faces[a], faces[b])
    shapes = {name: half.parameter_shapes(models[name]) for name, half in halves.items()}
    _require_same(f"model {config.model}: parameters", a, b, shapes[a], shapes[b])


def _require_same(what: str, a: str, b: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    for name in sorted(set(first) | set(second)):
        if first.get(name) != second.get(name):
            said = f"{name} {first.get(name, 'missing')} in {a} and {second.get(name, 'missing')} in {b}"
            raise InputError(f"{what}: received {said}, expected the same in both halves")


def _signatures(of: type) -> dict[str, list[str]]:
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
