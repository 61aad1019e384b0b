"""What a benchmark's records add up to: processes merged, the summary, an earlier benchmark compared with."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from vae_common.backend import HALVES
from vae_common.benchmark.cases import Case
from vae_common.benchmark.records import Ceilings, Record, Rounds, Summary
from vae_common.errors import InputError
from vae_common.files import read_json, reason

PRECISION_EPOCHS = 20
"""Of the trainings on digits whose test losses tell precisions apart."""


def merged(records: Sequence[Record]) -> Record:
    """The records of one case from several processes as one: rounds joined, all else medians over processes."""
    good = [record for record in records if record.error is None]
    if not good:
        return records[0]
    medians = {
        name: _medians([getattr(record, name) for record in good])
        for name in (
            "start_seconds", "part_seconds", "bound_seconds", "of_product_ceiling", "of_streaming_ceiling",
            "peak_host_bytes", "peak_device_bytes", "joules_per_image",
        )
    }  # fmt: skip
    first, rounds = good[0], Rounds()
    for record in good:
        for field in dataclasses.fields(Rounds):
            getattr(rounds, field.name).extend(getattr(record.rounds, field.name))
    ceilings = first.ceilings
    if ceilings is not None:
        ceilings = Ceilings(**_medians([dataclasses.asdict(r.ceilings) for r in good if r.ceilings is not None]))
    result = replace(first, processes=len(good), rounds=rounds, ceilings=ceilings, **medians)
    if rounds.epoch_seconds:
        epoch = Summary.of(rounds.epoch_seconds)
        trained = first.case.batch_size * first.case.ensemble * (first.steps or 0)
        result = replace(result, epoch_seconds=epoch, images_per_second=trained / epoch.median)
    if rounds.step_seconds:
        step = Summary.of(rounds.step_seconds)
        result = replace(result, step_seconds=step, images_per_second=first.case.batch_size / step.median)
    if rounds.floor_seconds:
        result = replace(
            result,
            step_over_floor=Summary.of(rounds.step_over_floor),
            step_over_turns=Summary.of(rounds.step_over_turns),
        )
    return result


def _medians(values: Sequence[Any]) -> Any:
    """The median of numbers, or of each number in mappings alike; None where there is none."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    if isinstance(found[0], Mapping):
        common = [name for name in found[0] if all(name in value for value in found)]
        return {name: _medians([value[name] for value in found]) for name in common}
    return statistics.median(found)


def chosen(records: Iterable[Record], **wanted: Any) -> Iterator[Record]:
    """The records, failed ones left out, whose case has these values."""
    for record in records:
        if record.error is None and all(getattr(record.case, name) == value for name, value in wanted.items()):
            yield record


def summary(records: Sequence[Record], base: Case) -> dict[str, Any]:
    """The figures that a benchmark is read for; what was not measured is left out."""
    at = {name: getattr(base, name) for name in ("batch_size", "precision", "model", "latent_dim", "hidden")}
    found = {
        "step_over_floor": _by_framework(records, at, "step_over_floor"),
        "step_over_turns": _by_framework(records, at, "step_over_turns"),
        "start_seconds": _starts(records),
        "times_the_recipe": _times_the_recipe(records),
        "times_the_peers": _over_peers(records),
        "ensemble_cost": _ensemble_costs(records, at),
        "precisions": _precisions(records, at),
    }
    return {name: values for name, values in found.items() if values}


def _by_framework(records: Sequence[Record], at: Mapping[str, Any], kind: str) -> dict[str, dict[str, float]]:
    """A ratio's median, by framework and execution."""
    found: dict[str, dict[str, float]] = {}
    for record in chosen(records, kind="step", ensemble=1, **at):
        by_execution = found.setdefault(record.case.framework, {})
        by_execution[record.case.execution] = round(getattr(record, kind).median, 3)
    return found


def _starts(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Seconds until a process has taken its first step, by variant: `cold`, and `warm` where programs were kept."""
    found: dict[str, dict[str, float]] = {}
    for record in chosen(records, ensemble=1):
        if record.start_seconds is not None and record.case.kind in ("step", "network", "warm"):
            kind = "warm" if record.case.kind == "warm" else "cold"
            found.setdefault(record.variant, {}).setdefault(kind, round(record.start_seconds["to_first_step"], 2))
    return {variant: starts for variant, starts in found.items() if len(starts) == 2}


def _over_peers(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """How many times as fast as each peer on the same network, by peer and variant."""
    epochs = [record for record in chosen(records, kind="epoch") if record.images_per_second]
    halves = [record for record in epochs if record.case.framework in HALVES]
    found: dict[str, dict[str, float]] = {}
    for peer in epochs:
        if peer.case.experiment and peer.case.framework not in HALVES:
            for record in halves:
                same = (record.case.experiment, record.case.images) == (peer.case.experiment, peer.case.images)
                if same and record.images_per_second and peer.images_per_second:
                    times = record.images_per_second / peer.images_per_second
                    found.setdefault(peer.case.framework, {})[record.variant] = round(times, 2)
    return found


def _times_the_recipe(records: Sequence[Record]) -> dict[str, float]:
    """How many times as fast as the recipe, by variant."""
    recipe = [r.images_per_second for r in chosen(records, framework="recipe") if r.images_per_second]
    found: dict[str, float] = {}
    for record in chosen(records, kind="epoch", ensemble=1, hidden=(400,), latent_dim=20) if recipe else ():
        if record.case.framework in HALVES and record.images_per_second:
            found[record.variant] = round(record.images_per_second / recipe[0], 2)
    return found


def _ensemble_costs(records: Sequence[Record], at: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What a step of several seeds costs in steps of one, by variant and number of seeds."""
    found: dict[str, dict[str, float]] = {}
    for record in chosen(records, kind="step", **at):
        if record.ensemble_cost is not None:
            by_seeds = found.setdefault(record.variant, {})
            by_seeds[str(record.case.ensemble)] = round(record.ensemble_cost.median, 2)
    return found


def _precisions(records: Sequence[Record], at: Mapping[str, Any]) -> dict[str, Any]:
    """Speed relative to float32, and the difference of the test loss on digits after the same training."""
    shape = {name: at[name] for name in ("batch_size", "model", "hidden", "latent_dim")}
    steps = {(r.variant, r.case.precision): r for r in chosen(records, kind="step", ensemble=1, **shape)}
    losses = {
        (r.case.framework, r.case.precision): r.test_loss_nats
        for r in chosen(records, kind="loss", dataset="digits", epochs=PRECISION_EPOCHS)
    }
    found: dict[str, Any] = {}
    for (variant, precision), record in steps.items():
        single = steps.get((variant, "float32"))
        loss, own = (losses.get((record.case.framework, name)) for name in (precision, "float32"))
        if precision == "float32" or single is None or loss is None or own is None:
            continue
        speeds = record.images_per_second, single.images_per_second
        if speeds[0] and speeds[1]:
            found.setdefault(variant, {})[precision] = {
                "speed": round(speeds[0] / speeds[1], 3),
                "test_loss_difference_nats": loss - own,
            }
    return found


def read_results(path: Path, name: str = "baseline") -> list[Record]:
    """The records in an earlier benchmark.json; raises InputError, which calls it by that name, where it is none."""
    held = read_json(path, name)
    try:
        return [Record.from_json(record) for record in held["results"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name}: {path} is no benchmark's benchmark.json ({reason(error)})") from error


def against(results: Sequence[Record], earlier: Sequence[Record]) -> dict[str, Any]:
    """This benchmark's seconds over an earlier one's, for every case that both measured on the same kind of device.

    Returns:
        By case: the geometric mean of the ratios, its 95 % confidence interval, and what was paired: the medians
        of processes where both have at least two, else rounds. Rounds of one process are alike, and an interval
        over them says nothing of how processes differ. `over_floor`: the same of step over floor, from which
        the machine's drift is gone.
    """
    by_key = {record.key: record for record in earlier}
    found = {}
    for record in results:
        before = by_key.get(record.key)
        own = None if before is None or _device(record) != _device(before) else compared(record, before)
        if own is not None:
            found[record.key] = own
    return found


def compared(record: Record, before: Record) -> dict[str, Any] | None:
    """One record's seconds over another's, as `against` says; None where they have not measured the same."""
    both = record, before
    steps = all(r.rounds.step_seconds for r in both)
    seconds = [r.rounds.step_seconds if steps else r.rounds.epoch_seconds for r in both]
    if not all(seconds):
        return None
    processes = [r.processes for r in both]
    found = _compared(list(zip(seconds, processes)))
    over = [r.rounds.step_over_floor for r in both]
    if steps and all(over):
        found["over_floor"] = _compared(list(zip(over, processes)))
    return found


def _device(record: Record) -> str | None:
    return None if record.environment is None else record.environment.get("device")


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
        reach = float(stdtrit(len(logs) - 1, 0.975)) * statistics.stdev(logs) / math.sqrt(len(logs))
        interval = [math.exp(mean - reach), math.exp(mean + reach)]
    return {"ratio": math.exp(mean), "interval": interval, "n": len(logs)}
