"""Measures one case of a benchmark in a fresh process: what is asked as JSON in, the record as JSON out.

python -m scripts.benchmark_worker '{"case": {"framework": "torch", "batch_size": 512}}'

With `"follow": true` it ends when its standard input does, so a benchmark that is killed leaves none behind.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from types import ModuleType
from typing import Any

from scripts.halves import HALVES, load_halves
from vae_common import stopping
from vae_common.errors import InputError


def main(text: str) -> dict[str, Any]:
    """The record of the case; the half is imported under the clock, before anything heavy is."""
    asked: dict[str, Any] = json.loads(text)
    if asked.get("follow"):
        stopping.follow_parent()
    values = asked["case"]
    framework = values.get("framework", "jax")
    start = time.perf_counter()
    half = importlib.import_module(HALVES["torch" if framework == "recipe" else framework])
    imported = time.perf_counter() - start
    from vae_common import benchmarks

    half.cache_programs(asked.get("programs"))
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    case = benchmarks.Case(**fields)
    if asked.get("check"):
        benchmarks.require_measurable(half, case)
        return {}
    if framework == "recipe":
        from scripts.recipe import measure_recipe

        return measure_recipe(case)
    return benchmarks.measure(half, case, imported, _every_half)


def _every_half() -> dict[str, ModuleType]:
    """For the floor: the fastest of what is installed."""
    found: dict[str, ModuleType] = {}
    for name in HALVES:
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
