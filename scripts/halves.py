"""How the scripts find the two halves."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Literal

Framework = Literal["jax", "torch"]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twin-vae"


def load_halves(*frameworks: str, program_cache: bool = True) -> dict[str, ModuleType]:
    """The halves by name; a framework that is not asked for is not imported.

    With `program_cache` they keep compiled programs in the user's cache folder, and find them there.
    """
    halves = {name: importlib.import_module(f"{name}_vae") for name in frameworks}
    for half in halves.values():
        half.cache_programs(str(CACHE) if program_cache else None)
    return halves
