"""Measures one case of a benchmark in a fresh process: what is asked as JSON in, the record as JSON out.

python -m vae_common.benchmark.worker '{"case": {"framework": "torch", "batch_size": 512}}'

With `"follow": true` it ends when its standard input does, so a benchmark that is killed leaves none behind.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any, cast

from vae_common import stopping
from vae_common.backend import HALVES, Half, installed, load_halves
from vae_common.errors import InputError


def main(text: str) -> dict[str, Any]:
    """The record of the case; the half is imported under the clock, before anything heavy is."""
    asked: dict[str, Any] = json.loads(text)
    if asked.get("follow"):
        stopping.follow_parent()
    values = asked["case"]
    framework = values.get("framework", "jax")
    start = time.perf_counter()
    half = cast(Half, importlib.import_module(HALVES["torch" if framework == "recipe" else framework]))
    imported = time.perf_counter() - start
    from vae_common.benchmark import measurement
    from vae_common.benchmark.cases import Case

    half.cache_programs(asked.get("programs"))
    case = Case.from_json(values)
    if asked.get("check"):
        measurement.require_measurable(half, case)
        return {}
    if framework == "recipe":
        return measurement.measure_recipe(half, case).to_json()
    return measurement.measure(half, case, imported, _every_half).to_json()


def _every_half() -> dict[str, Half]:
    """For the floor: the fastest of what is installed."""
    found: dict[str, Half] = {}
    for name in installed():
        found |= load_halves(name, program_cache=False)
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1])))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
