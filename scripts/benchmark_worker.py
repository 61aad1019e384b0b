"""Measures one case of a benchmark in a fresh process: the case as JSON in, its record as JSON out.

python -m scripts.benchmark_worker '{"framework": "torch", "batch_size": 512}'
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from types import ModuleType
from typing import Any

from scripts.halves import load_halves
from vae_common.configs import InputError


def main(text: str) -> dict[str, Any]:
    """The record of the case; the half is imported under the clock, before anything heavy is."""
    values: dict[str, Any] = json.loads(text)
    framework = values.get("framework", "jax")
    start = time.perf_counter()
    half = importlib.import_module("torch_vae" if framework == "recipe" else f"{framework}_vae")
    imported = time.perf_counter() - start
    from vae_common import benchmarks

    half.cache_programs(values.pop("programs", None))
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    case = benchmarks.Case(**fields)
    if framework == "recipe":
        from scripts.recipe import measure_recipe

        return measure_recipe(case)
    return benchmarks.measure(half, case, imported, _every_half)


def _every_half() -> dict[str, ModuleType]:
    """For the floor: the fastest of what is installed."""
    found: dict[str, ModuleType] = {}
    for name in ("jax", "torch"):
        try:
            found |= load_halves(name, program_cache=False)
        except ImportError:
            continue
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1])))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
