"""Faults planted in one of two programs, to show that the checks between them notice.

Knows objects and attributes alone: whoever plants says what is put in place of what.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

Patches = list[tuple[Any, str, Any]]
"""(owner, name, replacement): owners are modules, classes and dicts."""


@contextlib.contextmanager
def patched(patches: Patches) -> Iterator[None]:
    """Puts the replacements in place while the block runs."""
    originals: Patches = []
    try:
        for owner, name, value in patches:
            originals.append((owner, name, _get(owner, name)))
            _set(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(originals):
            _set(owner, name, value)


def everywhere(package: Any, name: str, value: Any) -> Patches:
    """A function replaced in a package and in each of its modules that holds it."""
    modules = [package, *(module for module in vars(package).values() if isinstance(module, ModuleType))]
    return [(module, name, value) for module in modules if hasattr(module, name)]


def _get(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)
