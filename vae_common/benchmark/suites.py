"""The cases of a whole benchmark, run one after the other, each in a fresh process."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vae_common import files, stopping
from vae_common.benchmark.cases import Case
from vae_common.benchmark.records import Record
from vae_common.benchmark.results import PRECISION_EPOCHS, against, merged, read_results, summary
from vae_common.config.checks import require_count
from vae_common.errors import InputError
from vae_common.progress import Progress

BATCH_SIZES = (32, 128, 512, 2048, 8192)
RECIPE: dict[str, Any] = {"hidden": (400,), "latent_dim": 20, "kind": "epoch"}
GROWTH: dict[str, tuple[Any, ...]] = {
    "images": (1024, 4096, 16384, 60000, 600000),
    "hidden": ((64,), (128,), (256,), (512,), (1024,), (2048,)),
    "latent_dim": (2, 8, 32, 128, 512),
    "ensemble": (1, 2, 4, 8, 16),
}
LOSS_EPOCHS = 10
GROWTH_IMAGES = 7680
"""Of an epoch where something else grows."""


KIND = "benchmark"
MOST_ROUNDS = 10_000


@dataclasses.dataclass(frozen=True)
class Plan:
    """A benchmark that has been checked: what is measured, and what it is compared with."""

    base: Case
    suite: str
    cases: tuple[Case, ...]
    processes: int
    programs: str | None
    earlier: tuple[Record, ...]


def plan(
    base: Case,
    suite: str,
    frameworks: Sequence[str],
    executions: Sequence[str],
    processes: int,
    programs: str | None,
    baseline: Path | None,
) -> Plan:
    """The cases of a suite. Nothing is written.

    Args:
        base: what every case has, but for what the suite changes.
        suite: `quick`, `recipe` or `full`.
        executions: of PyTorch; none stands for all that the device has.
        programs: where compiled programs are found and kept; None keeps none, so that every start is a cold one.
        baseline: an earlier `benchmark.json`, to compare with.

    Raises:
        InputError: where what was asked for cannot be run: no device, arithmetic or execution of that name, too much
            memory, a baseline that is none.
    """
    require_count("processes", processes, 1, MOST_ROUNDS)
    require_count("rounds", base.rounds, 1, MOST_ROUNDS)
    earlier = read_results(baseline) if baseline else []
    gpu = base.device == "cuda" or (base.device == "auto" and _said("nvidia-smi") is not None)
    modes = executions or (*(("graph",) if gpu else ()), "eager", "compile")
    variants = [(f, e) for f in frameworks for e in (modes if f == "torch" else ("auto",))]
    if not variants:
        raise InputError(f"frameworks: received {list(frameworks)}, expected at least one")
    cases = full(base, variants, gpu) if suite == "full" else {"quick": quick, "recipe": recipe}[suite](base, variants)
    asked = [dataclasses.replace(base, framework=f, execution=e) for f, e in variants]
    for case in asked:
        failed = _measured(case, programs, check=True).error
        if failed is not None:
            raise InputError(f"benchmark: no process could be started for {case.framework} ({failed})")
    return Plan(base, suite, tuple(dict.fromkeys(cases)), processes, programs, tuple(earlier))


def execute(ordered: Plan, folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """Runs the cases, writes `benchmark.json` into the folder and returns what it holds.

    Raises InputError where no case could be run.
    """
    where, base = machine(), ordered.base
    results = run_cases(ordered.cases, ordered.processes, folder / "records.jsonl", ordered.programs)
    if all(result.error is not None for result in results):
        raise InputError(f"benchmark: no case could be run; the first said: {results[0].error}")
    record: dict[str, Any] = {
        files.KIND: KIND,
        "command": list(command),
        "suite": ordered.suite,
        "machine": where,
        "base": dataclasses.asdict(base),
    }
    record |= {"summary": summary(results, base), "results": [result.to_json() for result in results]}
    if ordered.earlier:
        record["summary"]["against_baseline"] = against(results, ordered.earlier)
    text = json.dumps(record, indent=1) + "\n"
    files.write_atomically(folder / "benchmark.json", text.encode())
    written: dict[str, Any] = json.loads(text)
    return written


def quick(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """A step of each variant over its floor, and short epochs against the recipe's."""
    cases = [dataclasses.replace(base, framework=f, execution=e) for f, e in variants]
    return cases + _recipe(base, variants, images=6400, rounds=3)


def recipe(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """Whole epochs of 60,000 images against the recipe's."""
    return _recipe(base, variants, images=60000, rounds=3)


def full(base: Case, variants: Sequence[tuple[str, str]], gpu: bool) -> list[Case]:
    """Batch sizes, precisions, models, seeds, the recipe, test loss against seconds, and growth."""

    def each(chosen: Sequence[tuple[str, str]] = variants, **changes: Any) -> list[Case]:
        return [dataclasses.replace(base, framework=f, execution=e, **changes) for f, e in chosen]

    jax_eager = [(f, "eager") for f in dict(variants) if f == "jax"]
    first = [next(v for v in variants if v[0] == name) for name in dict.fromkeys(f for f, _ in variants)]
    cases = each()
    for batch in BATCH_SIZES:
        cases += each([*variants, *jax_eager], batch_size=batch) if batch != base.batch_size else []
    cases += each(jax_eager)
    for precision in ("float64", "bfloat16", *(("tf32",) if gpu else ())):
        for batch in (base.batch_size, 8192) if gpu else (base.batch_size,):
            cases += each(precision=precision, batch_size=batch)
    for precision in ("float32", "float64", "bfloat16", *(("tf32",) if gpu else ())):
        cases += each(first, kind="loss", precision=precision, epochs=PRECISION_EPOCHS, dataset="digits")
    cases += each(model="ae")
    cases += each(ensemble=4) + each(ensemble=16)
    cases += recipe(base, variants)
    cases += each(kind="loss", epochs=LOSS_EPOCHS)
    for field, values in GROWTH.items():
        for value in values:
            images = value if field == "images" else GROWTH_IMAGES
            changes = {"images": images, field: value}
            cases += each(first, kind="epoch", rounds=1 if images > 60000 else 3, **changes)
    return cases


def _recipe(base: Case, variants: Sequence[tuple[str, str]], images: int, rounds: int) -> list[Case]:
    kinds = [*variants, *(("recipe", "eager") for f in dict(variants) if f == "torch")]
    return [
        dataclasses.replace(base, framework=f, execution=e, images=images, rounds=rounds, **RECIPE) for f, e in kinds
    ]


def run_cases(cases: Sequence[Case], processes: int, log: Path, programs: str | None) -> list[Record]:
    """One record per different case; each is measured in that many fresh processes, turn by turn.

    Every record is added to `log` as soon as it is there. A case that fails has an `error` in place of numbers.
    """
    found: dict[str, list[Record]] = {}
    devices: set[str] = set()
    with Progress("benchmark", processes * len(cases), "case") as bar:
        for _ in range(processes):
            for case in cases:
                try:
                    record = _measured(case, programs)
                except InputError as error:
                    if case.precision == cases[0].precision:  # what was asked for; the rest a suite adds by itself
                        raise
                    record = Record(case, error=str(error))
                if record.platform is not None:
                    devices.add(record.platform)
                if len(devices) > 1:
                    raise InputError(
                        f"device: the halves run on {', '.join(sorted(devices))}; choose one with --device"
                    )
                files.append_line(log, json.dumps(record.to_json()))
                found.setdefault(case.key, []).append(record)
                bar.update(note=f"{case.kind} {case.framework} {case.execution} {case.precision}")
    return [merged(records) for records in found.values()]


def _measured(case: Case, programs: str | None, check: bool = False) -> Record:
    """What a fresh process measures of a case; with `check` it only says whether it could. It ends with this one."""
    kept = programs or tempfile.mkdtemp(prefix="twin-vae-")
    text = json.dumps({"case": dataclasses.asdict(case), "programs": programs, "check": check, "follow": True})
    command = [sys.executable, "-m", "vae_common.benchmark.worker", text]
    environment = os.environ | {} if programs else os.environ | {"TORCHINDUCTOR_CACHE_DIR": kept}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        with subprocess.Popen(command, text=True, env=environment, **pipes) as worker, stopping.saving(worker.kill):
            assert worker.stdout is not None
            assert worker.stderr is not None
            # Its standard input stays open as long as this process lives: that is how it knows.
            with ThreadPoolExecutor(1) as pool:
                errors = pool.submit(worker.stderr.read)
                said, failed = worker.stdout.read(), errors.result()
    finally:
        if not programs:
            shutil.rmtree(kept, ignore_errors=True)
    if worker.returncode:
        last = (failed.strip().splitlines() or [f"exit status {worker.returncode}"])[-1]
        if worker.returncode == 2:
            raise InputError(last.removeprefix("error: "))
        return Record(case, error=last)
    return Record(case) if check else Record.from_json(json.loads(said.splitlines()[-1]))


def machine() -> Mapping[str, Any]:
    """What a record must say of where it was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": _said("git", "describe", "--always", "--dirty"),
    }


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
