"""What a benchmark's records add up to: processes merged, the summary, an earlier benchmark compared with."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from vae_common.benchmark.cases import Case
from vae_common.benchmark.measurement import summarize
from vae_common.errors import InputError
from vae_common.files import read_json, reason

Record = dict[str, Any]
PRECISION_EPOCHS = 20
"""Of the trainings on digits whose test losses tell precisions apart."""


def merged(records: Sequence[Record]) -> Record:
    """The records of one case from several processes as one: rounds joined, all else medians over processes."""
    good = [record for record in records if "error" not in record]
    if not good:
        return dict(records[0])
    result = dict(good[0]) | {"processes": len(good)}
    for name in ("start_seconds", "part_seconds", "ceilings"):
        if name in result:
            result[name] = {part: statistics.median(r[name][part] for r in good) for part in result[name]}
    for name in ("of_product_ceiling", "of_streaming_ceiling", "peak_host_bytes", "peak_device_bytes"):
        if result.get(name) is not None:
            result[name] = statistics.median(r[name] for r in good)
    if "rounds" not in result:
        return result
    rounds = result["rounds"] = {name: [v for r in good for v in r["rounds"][name]] for name in result["rounds"]}
    batch = result["case"]["batch_size"]
    result["epoch_seconds"] = summarize(rounds["epoch_seconds"])
    trained = batch * result["case"]["ensemble"] * result["steps"]
    result["images_per_second"] = trained / result["epoch_seconds"]["median"]
    if "step_seconds" in rounds:
        result["step_seconds"] = summarize(rounds["step_seconds"])
        result["images_per_second"] = batch / result["step_seconds"]["median"]
        for name, below in (("step_over_floor", "floor_seconds"), ("step_over_turns", "turns_seconds")):
            result[name] = summarize([step / least for step, least in zip(rounds["step_seconds"], rounds[below])])
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
    found: dict[str, Any] = {"step_over_floor": {}, "step_over_turns": {}, "times_the_recipe": {}}
    found["ensemble_cost"] = {}
    for result in chosen(results, kind="step", ensemble=1, **at):
        for kind in ("step_over_floor", "step_over_turns"):
            by_execution = found[kind].setdefault(result["case"]["framework"], {})
            by_execution[result["case"]["execution"]] = round(result[kind]["median"], 3)
    recipe = [r["images_per_second"] for r in chosen(results, framework="recipe")]
    for result in chosen(results, kind="epoch", ensemble=1, hidden=[400], latent_dim=20) if recipe else ():
        if result["case"]["framework"] != "recipe":
            found["times_the_recipe"][_name(result)] = round(result["images_per_second"] / recipe[0], 2)
    for result in chosen(results, kind="step", **at):
        if "ensemble_cost" in result:
            by_seeds = found["ensemble_cost"].setdefault(_name(result), {})
            by_seeds[str(result["case"]["ensemble"])] = round(result["ensemble_cost"]["median"], 2)
    found["precisions"] = _precisions(results, at)
    return {name: values for name, values in found.items() if values}


def _precisions(results: Sequence[Record], at: Mapping[str, Any]) -> dict[str, Any]:
    """Speed relative to float32, and the difference of the test loss on digits after the same training."""
    shape = {name: at[name] for name in ("batch_size", "model", "hidden", "latent_dim")}
    speeds = {
        (_name(r), r["case"]["precision"]): r["images_per_second"]
        for r in chosen(results, kind="step", ensemble=1, **shape)
    }
    frameworks = {_name(r): r["case"]["framework"] for r in results if "error" not in r}
    losses = {
        (r["case"]["framework"], r["case"]["precision"]): r["test_loss_nats"]
        for r in chosen(results, kind="loss", dataset="digits", epochs=PRECISION_EPOCHS)
    }
    found: dict[str, Any] = {}
    for (name, precision), speed in speeds.items():
        framework = frameworks[name]
        if (
            precision != "float32"
            and (name, "float32") in speeds
            and {(framework, precision), (framework, "float32")} <= losses.keys()
        ):
            found.setdefault(name, {})[precision] = {
                "speed": round(speed / speeds[name, "float32"], 3),
                "test_loss_difference_nats": losses[framework, precision] - losses[framework, "float32"],
            }
    return found


def _name(result: Record) -> str:
    return f"{result['case']['framework']} {result['case']['execution']}"


def read_results(path: Path) -> list[Record]:
    """The results in an earlier benchmark.json; raises InputError where it is none."""
    held = read_json(path, "baseline")
    try:
        results = held["results"]
        return [_as_now(record) for record in results]
    except (KeyError, TypeError) as error:
        raise InputError(f"baseline: {path} is no benchmark's benchmark.json ({reason(error)})") from error


def _as_now(record: Record) -> Record:
    """A record, also of an earlier version's, by the names of today."""
    now = record | {"key": Case.from_json(record["case"]).key}
    rounds = record.get("rounds", {})
    if "parts_seconds" in rounds:  # what is the floor now; the floor was what took turns
        names = {"parts_seconds": "floor_seconds", "floor_seconds": "turns_seconds"}
        now["rounds"] = {names.get(name, name): values for name, values in rounds.items()}
    return now


def against(results: Sequence[Record], earlier: Sequence[Record]) -> dict[str, Any]:
    """This benchmark's seconds over an earlier one's, for every case that both measured on the same kind of device.

    Returns:
        By case: the geometric mean of the ratios, its 95 % confidence interval, and what was paired: the medians
        of processes where both have at least two, else rounds. Rounds of one process are alike, and an interval
        over them says nothing of how processes differ. `over_floor`: the same of step over floor, from which
        the machine's drift is gone.
    """
    by_key = {record["key"]: record for record in earlier}
    compared = {}
    for result in results:
        before = by_key.get(result["key"], {})
        same = result.get("environment", {}).get("device") == before.get("environment", {}).get("device")
        if not same or "rounds" not in result or "rounds" not in before:
            continue
        name = "step_seconds" if "step_seconds" in result["rounds"] else "epoch_seconds"
        both = [(r["rounds"], r.get("processes", 1)) for r in (result, before)]
        compared[result["key"]] = _compared([(rounds[name], processes) for rounds, processes in both])
        if name == "step_seconds":
            over = [([s / f for s, f in zip(r[name], r["floor_seconds"])], processes) for r, processes in both]
            compared[result["key"]]["over_floor"] = _compared(over)
    return compared


def _compared(both: Sequence[tuple[Sequence[float], int]]) -> dict[str, Any]:
    paired_by = "process" if min(processes for _, processes in both) > 1 else "round"
    each = [len(values) // processes if paired_by == "process" else 1 for values, processes in both]
    now, then = (
        [statistics.median(values[i : i + size]) for i in range(0, len(values), size)]
        for (values, _), size in zip(both, each)
    )
    return ratio(now, then) | {"paired_by": paired_by}


def ratio(now: Sequence[float], then: Sequence[float]) -> dict[str, Any]:
    """Geometric mean of now / then, paired, with its 95 % confidence interval; None with fewer than two pairs."""
    logs = [math.log(a / b) for a, b in zip(now, then)]
    mean = statistics.fmean(logs)
    interval = None
    if len(logs) > 1:
        reach = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
        interval = [math.exp(mean - reach), math.exp(mean + reach)]
    return {"ratio": math.exp(mean), "interval": interval, "n": len(logs)}
