"""The cases of a whole benchmark, run one after the other, each in a fresh process; and what they add up to."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from tqdm import tqdm

from vae_common.benchmarks import Case, cores, spread
from vae_common.configs import InputError

Record = dict[str, Any]
BATCH_SIZES = (32, 128, 512, 2048, 8192)
RECIPE: dict[str, Any] = {"hidden": (400,), "latent_dim": 20, "kind": "epoch"}
GROWTH: dict[str, tuple[Any, ...]] = {
    "images": (1024, 4096, 16384, 60000, 600000),
    "hidden": ((64,), (128,), (256,), (512,), (1024,), (2048,)),
    "latent_dim": (2, 8, 32, 128, 512),
    "parallel_seeds": (1, 2, 4, 8, 16),
}
LOSS_EPOCHS = 10
PRECISION_EPOCHS = 20
GROWTH_IMAGES = 7680
"""Of an epoch where something else grows."""


def benchmark(
    base: Case,
    suite: str,
    frameworks: Sequence[str],
    executions: Sequence[str],
    processes: int,
    folder: Path,
    command: Sequence[str],
    programs: str | None,
    baseline: Path | None,
) -> dict[str, Any]:
    """Runs a suite, writes `benchmark.json` into the folder and returns what it holds.

    Args:
        base: what every case has, but for what the suite changes.
        suite: `quick` or `full`.
        executions: of PyTorch; none stands for all that the device has.
        programs: where compiled programs are found and kept; None keeps none, so that every start is a cold one.
        baseline: an earlier `benchmark.json`, to compare with.

    Raises:
        InputError: where a case cannot be run as it is asked for, or none can.
    """
    base.config()
    earlier = read_results(baseline) if baseline else []
    gpu = base.device == "cuda" or (base.device == "auto" and _said("nvidia-smi") is not None)
    modes = executions or ("eager", "compile", *(("graph",) if gpu else ()))
    variants = [(f, e) for f in frameworks for e in (modes if f == "torch" else ("auto",))]
    if processes < 1 or not variants:
        raise InputError(f"processes, frameworks: received {processes}, {list(frameworks)}; expected at least one each")
    where = machine()
    cases = quick(base, variants) if suite == "quick" else full(base, variants, gpu)
    results = run(cases, processes, folder / "records.jsonl", programs)
    if all("error" in result for result in results):
        raise InputError(f"benchmark: no case could be run; the first said: {results[0]['error']}")
    record: dict[str, Any] = {
        "command": list(command),
        "suite": suite,
        "machine": where,
        "base": dataclasses.asdict(base),
    }
    record |= {"summary": summary(results, base), "results": results}
    if earlier:
        record["summary"]["against_baseline"] = against(results, earlier)
    (folder / "benchmark.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def quick(base: Case, variants: Sequence[tuple[str, str]]) -> list[Case]:
    """A step of each variant over its floor, and short epochs against the recipe's."""
    cases = [dataclasses.replace(base, framework=f, execution=e) for f, e in variants]
    return cases + _recipe(base, variants, images=6400, rounds=3)


def full(base: Case, variants: Sequence[tuple[str, str]], gpu: bool) -> list[Case]:
    """Batch sizes, precisions, models, seeds, the recipe, test loss against seconds, and growth."""

    def each(chosen: Sequence[tuple[str, str]] = variants, **changes: Any) -> list[Case]:
        return [dataclasses.replace(base, framework=f, execution=e, **changes) for f, e in chosen]

    first = [next(v for v in variants if v[0] == name) for name in dict.fromkeys(f for f, _ in variants)]
    cases = each()
    for batch in BATCH_SIZES:
        cases += each([*variants, ("jax", "eager")], batch_size=batch) if batch != base.batch_size else []
    cases += each([("jax", "eager")])
    for precision in ("float64", "bfloat16", *(("tf32",) if gpu else ())):
        for batch in (base.batch_size, 8192) if gpu else (base.batch_size,):
            cases += each(precision=precision, batch_size=batch)
    for precision in ("float32", "float64", "bfloat16", *(("tf32",) if gpu else ())):
        cases += each(first, kind="loss", precision=precision, epochs=PRECISION_EPOCHS, dataset="digits")
    cases += each(model="ae")
    cases += each(parallel_seeds=4) + each(parallel_seeds=16)
    cases += _recipe(base, variants, images=60000, rounds=3)
    cases += each(kind="loss", epochs=LOSS_EPOCHS)
    for field, values in GROWTH.items():
        for value in values:
            images = value if field == "images" else GROWTH_IMAGES
            changes = {"images": images, field: value}
            cases += each(first, kind="epoch", rounds=1 if images > 60000 else 3, **changes)
    return cases


def _recipe(base: Case, variants: Sequence[tuple[str, str]], images: int, rounds: int) -> list[Case]:
    run = [*variants, ("recipe", "eager")]
    return [dataclasses.replace(base, framework=f, execution=e, images=images, rounds=rounds, **RECIPE) for f, e in run]


def run(cases: Sequence[Case], processes: int, log: Path, programs: str | None) -> list[Record]:
    """One record per different case; each is measured in that many fresh processes, turn by turn.

    Every record is added to `log` as soon as it is there. A case that fails has an `error` in place of numbers.
    """
    cases = list(dict.fromkeys(cases))
    found: dict[str, list[Record]] = {}
    with open(log, "a") as file, tqdm(total=processes * len(cases), unit="case", disable=None, file=sys.stderr) as bar:
        for _ in range(processes):
            for case in cases:
                bar.set_postfix_str(f"{case.kind} {case.framework} {case.execution} {case.precision}")
                record = _measured(case, programs)
                file.write(json.dumps(record) + "\n")
                file.flush()
                found.setdefault(case.key, []).append(record)
                bar.update()
    return [merged(records) for records in found.values()]


def _measured(case: Case, programs: str | None) -> Record:
    text = json.dumps(dataclasses.asdict(case) | {"programs": programs})
    command = [sys.executable, "-m", "scripts.benchmark_worker", text]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 2:  # InputError: the same for every such case
        raise InputError(result.stderr.strip().removeprefix("error: "))
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        return {"case": dataclasses.asdict(case), "key": case.key, "error": last}
    return json.loads(result.stdout.splitlines()[-1])


def merged(records: Sequence[Record]) -> Record:
    """The records of one case from several processes as one: rounds joined, starts and parts as medians."""
    good = [record for record in records if "error" not in record]
    if not good:
        return dict(records[0])
    result = dict(good[0]) | {"processes": len(good)}
    if "rounds" in result:
        result["rounds"] = {name: [v for r in good for v in r["rounds"][name]] for name in result["rounds"]}
    for name in result.get("rounds", {}):
        if name in ("step_seconds", "epoch_seconds"):
            result[name] = spread(result["rounds"][name])
            alike = result["case"]["parallel_seeds"] * result["steps"] if name == "epoch_seconds" else 1
            result["images_per_second"] = alike * result["case"]["batch_size"] / result[name]["median"]
    if "step_over_floor" in result:
        pairs = zip(result["rounds"]["step_seconds"], result["rounds"]["floor_seconds"])
        result["step_over_floor"] = spread([step / floor for step, floor in pairs])
    for name in ("start_seconds", "part_seconds"):
        if name in result:
            result[name] = {part: statistics.median(r[name][part] for r in good) for part in result[name]}
    return result


def chosen(results: Iterable[Mapping[str, Any]], **wanted: Any) -> Iterator[Any]:
    """The results, failed ones left out, whose case has these values."""
    for result in results:
        if "error" not in result and all(result["case"][name] == value for name, value in wanted.items()):
            yield result


def summary(results: Sequence[Record], base: Case) -> dict[str, Any]:
    """The figures that a benchmark is read for; what was not measured is left out."""
    at = {name: getattr(base, name) for name in ("batch_size", "precision", "model", "latent_dim")}
    at |= {"hidden": list(base.hidden)}
    results = json.loads(json.dumps(list(results)))  # tuples as lists, as in a file
    found: dict[str, Any] = {"step_over_floor": {}, "times_the_recipe": {}, "parallel_seeds_cost": {}}
    single = {}
    for result in chosen(results, kind="step", parallel_seeds=1, **at):
        name = _name(result)
        single[name] = result["step_seconds"]["median"]
        by_execution = found["step_over_floor"].setdefault(result["case"]["framework"], {})
        by_execution[result["case"]["execution"]] = round(result["step_over_floor"]["median"], 3)
    recipe = [r["images_per_second"] for r in chosen(results, framework="recipe")]
    for result in chosen(results, kind="epoch", parallel_seeds=1, hidden=[400], latent_dim=20) if recipe else ():
        if result["case"]["framework"] != "recipe":
            found["times_the_recipe"][_name(result)] = round(result["images_per_second"] / recipe[0], 2)
    for result in chosen(results, kind="step", **at):
        seeds, name = result["case"]["parallel_seeds"], _name(result)
        if seeds > 1 and name in single:
            cost = seeds * result["step_seconds"]["median"] / single[name]
            found["parallel_seeds_cost"].setdefault(name, {})[str(seeds)] = round(cost, 2)
    found["precisions"] = _precisions(results, at)
    return {name: values for name, values in found.items() if values}


def _precisions(results: Sequence[Record], at: Mapping[str, Any]) -> dict[str, Any]:
    """Speed relative to float32, and the difference of the test loss on digits after the same training."""
    shape = {name: at[name] for name in ("batch_size", "model", "hidden", "latent_dim")}
    speeds = {
        (_name(r), r["case"]["precision"]): r["images_per_second"]
        for r in chosen(results, kind="step", parallel_seeds=1, **shape)
    }
    losses = {
        (r["case"]["framework"], r["case"]["precision"]): r["test_loss_nats"]
        for r in chosen(results, kind="loss", dataset="digits", epochs=PRECISION_EPOCHS)
    }
    found: dict[str, Any] = {}
    for (name, precision), speed in speeds.items():
        framework = name.split()[0]
        if precision != "float32" and (name, "float32") in speeds and (framework, precision) in losses:
            found.setdefault(name, {})[precision] = {
                "speed": round(speed / speeds[name, "float32"], 3),
                "test_loss_difference_nats": losses[framework, precision] - losses[framework, "float32"],
            }
    return found


def _name(result: Record) -> str:
    return f"{result['case']['framework']} {result['case']['execution']}"


def read_results(path: Path) -> list[Record]:
    """The results in an earlier benchmark.json; raises InputError where it is none."""
    try:
        results = json.loads(path.read_text())["results"]
        _ = [(record["key"], record["case"]) for record in results]
        return results
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"baseline: {path} is no benchmark's benchmark.json ({error!r})") from error


def against(results: Sequence[Record], earlier: Sequence[Record]) -> dict[str, Any]:
    """This benchmark's seconds over an earlier one's, round by round, for every case that both measured.

    Returns:
        By case: the geometric mean of the ratios and its 95 % confidence interval (of the mean log ratio,
        paired by round); `over_floor` the same of step over floor, from which the machine's drift is gone.
    """
    by_key = {record["key"]: record for record in earlier}
    compared = {}
    for result in results:
        before = by_key.get(result["key"], {})
        if "rounds" not in result or "rounds" not in before:
            continue
        name = "step_seconds" if "step_seconds" in result["rounds"] else "epoch_seconds"
        now, then = result["rounds"], before["rounds"]
        compared[result["key"]] = ratio(now[name], then[name])
        if "floor_seconds" in now:
            over = [[s / f for s, f in zip(r[name], r["floor_seconds"])] for r in (now, then)]
            compared[result["key"]]["over_floor"] = ratio(*over)
    if not compared:
        raise InputError("baseline: it measured none of these cases; expected the same suite and flags")
    return compared


def ratio(now: Sequence[float], then: Sequence[float]) -> dict[str, Any]:
    """Geometric mean of now / then, paired, with its 95 % confidence interval; None with fewer than two pairs."""
    logs = [math.log(a / b) for a, b in zip(now, then)]
    mean = statistics.fmean(logs)
    interval = None
    if len(logs) > 1:
        reach = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
        interval = [math.exp(mean - reach), math.exp(mean + reach)]
    return {"ratio": math.exp(mean), "interval": interval, "n": len(logs)}


def machine() -> Mapping[str, Any]:
    """What a record must say of where it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": cores(),
        "load_before": os.getloadavg()[0],
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": _said("git", "describe", "--always", "--dirty"),
    }


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
