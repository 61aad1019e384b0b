"""What a benchmark says in words: a table, which half is faster, and what makes its numbers doubtful."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy.special import stdtrit

from vae_common.backend import FRAMEWORKS
from vae_common.benchmark.cases import Case
from vae_common.benchmark.records import Record, Summary
from vae_common.benchmark.results import chosen, compared
from vae_common.benchmark.suites import LOSS_EPOCHS

STEADY = 0.05
"""Coefficient of variation above which a row says that it varies."""
HEAD = ("", "ms a step", "ms an epoch", "images/s", "over floor", "over in turn", "varies")


def notes(records: Sequence[Record], machine: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before the numbers: other work on the machine, unequal threads, rows that vary."""
    found = []
    others, cores, own = (int(machine.get(name) or 0) for name in ("others_running", "cores", "threads"))
    if others + own > cores:
        said = f"{others} other threads ran when it began, beside {own} of each half on {cores} processors"
        found.append(f"the machine had other work: {said}")
    threads: dict[str, set[str]] = {}
    for record in records:
        if record.environment is not None and "threads" in record.environment and record.platform == "cpu":
            threads.setdefault(record.environment["threads"], set()).add(record.case.framework)
    if len(threads) > 1:
        each = "; ".join(f"{', '.join(sorted(names))}: {count}" for count, names in sorted(threads.items()))
        found.append(f"the halves had unequal threads ({each})")
    rows = {name_of(record): variation_of(record) for record in records if variation_of(record) is not None}
    varying = [name for name, variation in rows.items() if (variation or 0) > STEADY]
    if varying:
        told = "every row" if len(varying) == len(rows) > 1 else ", ".join(varying)
        found.append(f"more than {STEADY:.0%} of variation: {told}")
    return found


def main_summary(record: Record) -> Summary | None:
    """The seconds that a record is about: a step's, or else an epoch's."""
    return record.step_seconds or record.epoch_seconds


def variation_of(record: Record) -> float | None:
    """The coefficient of variation of the seconds that a record is about."""
    summary = main_summary(record)
    return None if summary is None else summary.variation


def name_of(record: Record) -> str:
    """A row's name: the half, how it runs, and what is measured."""
    case = record.case
    mode = "" if case.execution == "auto" or case.framework not in FRAMEWORKS else f", {case.execution}"
    name = FRAMEWORKS.get(case.framework, case.framework)
    seeds = f", {case.ensemble} seeds" if case.ensemble > 1 else ""
    images = f", {case.images:,} images" if case.kind == "epoch" and case.images else ""
    own: Any = case.config().network
    widths = getattr(own, "block_channels", ()) or (*own.channels, *own.hidden, own.latent_dim)
    network = f"{case.model} {'-'.join(map(str, widths))}"
    return f"{name}{mode}: {case.kind}, {network}, batch {case.batch_size}, {case.precision}{images}{seeds}"


def table(records: Sequence[Record]) -> str:
    """A row for each record that has times, in aligned columns."""
    rows = [HEAD]
    for record in records:
        if record.error is not None:
            rows.append((name_of(record), f"failed: {record.error}"[:60], "", "", "", "", ""))
            continue
        if main_summary(record) is None:
            continue
        variation = variation_of(record)
        rows.append(
            (
                name_of(record),
                _milliseconds(record.step_seconds),
                _milliseconds(record.epoch_seconds),
                "" if record.images_per_second is None else f"{record.images_per_second:,.0f}",
                _ratio(record.step_over_floor),
                _ratio(record.step_over_turns),
                "" if variation is None else f"{variation:.1%}",
            )
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells as columns of text, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def sentence(records: Sequence[Record], base: Case) -> str | None:
    """Which half is faster on what every case has, in the fastest way that each has; None where there are not both."""
    best: dict[str, Record] = {}
    for record in records:
        name, summary, own = record.case.framework, main_summary(record), record.case
        same = record.key == replace(base, framework=name, execution=own.execution, kind=own.kind).key
        if same and name in FRAMEWORKS and summary is not None and own.kind in ("step", "network"):
            held = main_summary(best[name]) if name in best else None
            if held is None or summary.median < held.median:
                best[name] = record
    if len(best) < 2:
        return None
    jax, torch = best["jax"], best["torch"]
    found = compared(torch, jax)
    if found is None:
        return None
    ratio, interval = found["ratio"], found["interval"]
    faster, times = ("JAX", ratio) if ratio > 1 else ("PyTorch", 1 / ratio)
    each = ", ".join(
        f"{FRAMEWORKS[name]} {1e3 * summary.median:.3g} ms a step"
        for name, record in best.items()
        if (summary := main_summary(record)) is not None
    )
    if interval is None or found["paired_by"] != "process":  # rounds of one process are alike
        return f"{each}; of one process each nothing can be said: --processes 3 or more."
    low, high = sorted(interval if ratio > 1 else [1 / end for end in interval])
    if low <= 1:
        return (
            f"{each}; not distinguishable: the ratio's 95 % interval is {low:.2f} to {high:.2f} ({found['n']} pairs)."
        )
    return f"{each}; {faster} is faster: {times:.2f} times, 95 % interval {low:.2f} to {high:.2f} ({found['n']} pairs)."


def time_to_target(records: Sequence[Record], base: Case) -> dict[str, Any] | None:
    """Seconds until the test loss is where every training gets, over seeds: mean and 95 % interval, by variant.

    The target is the highest of the lowest losses, so that each reaches it (as AlgoPerf sets its own by what a
    reference reaches). None where fewer than two seeds were trained.
    """
    curves: dict[str, list[Sequence[Sequence[float]]]] = {}
    same = {"dataset": base.dataset, "precision": base.precision, "epochs": LOSS_EPOCHS}
    for record in chosen(records, kind="loss", **same):
        if record.test_loss_by_seconds:
            curves.setdefault(record.variant, []).append(record.test_loss_by_seconds)
    if not curves or min(map(len, curves.values())) < 2:
        return None
    target = max(min(loss for _, loss in curve) for of in curves.values() for curve in of)
    found: dict[str, Any] = {"target_nats": target}
    for variant, of in curves.items():
        reached = [next(seconds for seconds, loss in curve if loss <= target) for curve in of]
        reach = float(stdtrit(len(reached) - 1, 0.975)) * statistics.stdev(reached) / len(reached) ** 0.5
        mean = statistics.fmean(reached)
        found[variant] = {"seconds": mean, "interval": [mean - reach, mean + reach], "seeds": len(reached)}
    return found


def _milliseconds(summary: Summary | None) -> str:
    return "" if summary is None else f"{1e3 * summary.median:,.2f}"


def _ratio(summary: Summary | None) -> str:
    return "" if summary is None else f"{summary.median:.2f}"
