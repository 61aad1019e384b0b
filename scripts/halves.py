"""How the scripts find the two halves."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Literal

from vae_common.configs import InputError
from vae_common.errors import one_line
from vae_common.files import program_cache as cache_folder

Framework = Literal["jax", "torch"]
HALVES = {"jax": "jax_vae", "torch": "torch_vae"}
"""By name, the packages: nothing else is imported, whatever a file says."""
NEEDS = {"jax": ("jax", "flax", "optax"), "torch": ("torch",)}


def missing(framework: str) -> list[str]:
    """The packages that a half needs and that are not installed."""
    return [name for name in NEEDS[framework] if importlib.util.find_spec(name) is None]


def installed_half(framework: str) -> str:
    """The half of that name; where it is not installed the other one, which reads the same files, with a notice."""
    (other,) = (name for name in HALVES if name != framework)
    if not missing(framework) or missing(other):
        return framework
    said = f"{', '.join(missing(framework))} is not installed; {other} does the work of {framework}"
    print(f"notice: {said}", file=sys.stderr)
    return other


def load_halves(*frameworks: str, program_cache: bool = True) -> dict[str, ModuleType]:
    """The halves by name; a framework that is not asked for is not imported.

    With `program_cache` they keep compiled programs in the user's cache folder, and find them there.
    """
    for name in frameworks:
        if name not in HALVES:
            raise InputError(f"framework: received {name!r}, expected one of {', '.join(HALVES)}")
        if missing(name):
            raise InputError(
                f"framework: {name} needs {', '.join(missing(name))}, which is not installed: pip install it"
            )
    halves = {name: _imported(name) for name in frameworks}
    folder = cache_folder() if program_cache else None
    if program_cache and folder is None:
        said = "no folder of this user's own could be made for compiled programs; they are not kept"
        print(f"notice: {said} (XDG_CACHE_HOME chooses its place)", file=sys.stderr)
    for half in halves.values():
        half.cache_programs(None if folder is None else str(folder))
    return halves


def _imported(framework: str) -> ModuleType:
    try:
        return importlib.import_module(HALVES[framework])
    except (ImportError, ValueError) as error:  # a broken installation, or a variable that the framework cannot read
        said = f"framework: {framework} cannot be imported ({one_line(error, 200)})"
        raise InputError(f"{said}; check its installation and its environment variables") from error
