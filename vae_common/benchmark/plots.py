"""The figures of a benchmark's record: throughput, parts of a step, test loss against seconds, growth."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vae_common.benchmark.cases import Case
from vae_common.benchmark.records import Record
from vae_common.benchmark.results import chosen
from vae_common.benchmark.suites import GROWTH, GROWTH_IMAGES, LOSS_EPOCHS
from vae_common.figures import plotting

# By framework and execution: Okabe and Ito's colours, told apart by colour-blind people too.
STYLES = {
    "jax auto": {"label": "JAX, one program an epoch", "color": "#0072B2", "marker": "o"},
    "jax eager": {"label": "JAX, a jitted call a step", "color": "#56B4E9", "marker": "s"},
    "torch eager": {"label": "PyTorch, eager", "color": "#D55E00", "marker": "^"},
    "torch compile": {"label": "PyTorch, torch.compile", "color": "#E69F00", "marker": "v"},
    "torch graph": {"label": "PyTorch, CUDA graph", "color": "#CC79A7", "marker": "D"},
}
PARTS = {"gather": "#999999", "forward": "#56B4E9", "backward": "#0072B2", "adam": "#009E73"}
AXES = {"images": "images", "hidden": "hidden width", "latent_dim": "latent size", "ensemble": "seeds"}


def save_figures(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws every figure that a benchmark's record has the numbers for; returns their paths."""
    records, base = [Record.from_json(result) for result in record["results"]], Case.from_json(record["base"])
    figures = {
        "throughput": throughput(records),
        "parts": parts(records, base),
        "time_to_loss": time_to_loss(records, base),
        "growth": growth(records, base),
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {name: figure for name, figure in figures.items() if figure}
    notes = "; ".join(record.get("notes", []))
    for figure in drawn.values() if notes else ():
        figure.supxlabel(textwrap.fill(f"Note: {notes}", 110), fontsize="small", color="#aa3333")
    return [plotting.save(figure, folder / f"{name}.png") for name, figure in drawn.items()]


def throughput(records: Iterable[Record]) -> Figure | None:
    """Images per second against batch size, with the machine's ceiling for these products drawn in."""
    steps = list(chosen(records, kind="step", ensemble=1, precision="float32", model="vae"))
    if len({r.case.batch_size for r in steps}) < 2:
        return None
    figure, axes = _one("Training throughput against batch size")
    for name, of_variant in _by_variant(steps):
        x = [r.case.batch_size for r in of_variant]
        axes.plot(x, [r.images_per_second or 0.0 for r in of_variant], **_style(name))
    ceilings: dict[int, float] = {}
    for r in steps:
        if r.ceilings is not None and r.model_flops is not None:
            batch = r.case.batch_size
            ceilings[batch] = max(ceilings.get(batch, 0.0), batch * r.ceilings.flops_per_second / r.model_flops)
    highest = [ceilings[batch] for batch in sorted(ceilings)]
    axes.plot(sorted(ceilings), highest, color="black", linestyle="--", label="ceiling: the matrix products alone")
    axes.set(xscale="log", ylim=(0, None), xlabel="batch size", ylabel="images per second")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(sorted(ceilings), [f"{batch:,}" for batch in sorted(ceilings)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    return figure


def parts(records: Iterable[Record], base: Case) -> Figure | None:
    """What a step consists of, each part run by itself, beside the whole and its floor."""
    same = {name: getattr(base, name) for name in ("batch_size", "precision", "model", "latent_dim")}
    steps = [r for r in chosen(records, kind="step", ensemble=1, **same) if r.part_seconds and r.step_over_floor]
    if not steps:
        return None
    figure, axes = _one("The parts of a step, each run by itself (PyTorch's eagerly), and the whole")
    rows = [(name, of[0]) for name, of in _by_variant(steps)]
    for row, (_, record) in enumerate(rows):
        left, own = 0.0, _own_milliseconds(record)
        for name, colour in PARTS.items():
            axes.barh(row, own[name], left=left, height=0.5, color=colour, label=name if not row else None)
            left += own[name]
        marks = [row - 0.36, row + 0.36]
        whole, floor = own["step"], own["floor"]
        axes.plot([whole] * 2, marks, color="black", linewidth=2.5, label=None if row else "whole step")
        axes.plot([floor] * 2, marks, color="black", linestyle=":", label=None if row else "floor")
    axes.set_yticks(range(len(rows)), [_style(name)["label"] for name, _ in rows])
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds", xlim=(0, None))
    axes.legend(frameon=False, ncols=6, loc="upper center", bbox_to_anchor=(0.4, -0.16))
    return figure


def _own_milliseconds(record: Record) -> dict[str, float]:
    """What each part of a step adds to those before it, the whole step, and its floor."""
    assert record.part_seconds is not None
    assert record.step_over_floor is not None
    seconds = record.part_seconds
    own = {
        "gather": seconds["gather"],
        "forward": seconds["forward"] - seconds["gather"],
        "backward": seconds["backward"] - seconds["forward"],
        "adam": seconds["adam"],
        "step": seconds["step"],
        "floor": seconds["step"] / record.step_over_floor.median,
    }
    return {name: 1e3 * max(value, 0) for name, value in own.items()}


def time_to_loss(records: Iterable[Record], base: Case) -> Figure | None:
    """Test loss against the seconds of training so far, start included; a line at a loss that all reach."""
    same = {name: getattr(base, name) for name in ("dataset", "precision", "latent_dim")} | {"epochs": LOSS_EPOCHS}
    own = {
        name: [r.test_loss_by_seconds for r in of if r.test_loss_by_seconds]
        for name, of in _by_variant(chosen(records, kind="loss", **same))
        if name != "jax eager"
    }
    curves = {name: found[-1] for name, found in own.items() if found}
    if not curves:
        return None
    figure, axes = _one(f"Test loss on {base.dataset} against seconds of training, start included")
    target = max(min(loss for _, loss in curve) for curve in curves.values())
    for name, curve in curves.items():
        seconds, losses = zip(*curve)
        style = _style(name)
        reached = next(s for s, loss in zip(seconds, losses) if loss <= target)
        axes.plot(seconds, losses, **(style | {"label": f"{style['label']}: {reached:.1f} s"}))
    axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"{target:.1f} nats per image")
    axes.set(xlabel="seconds", ylabel="test loss, nats per image", xlim=(0, None))
    axes.legend(frameon=False)
    return figure


def growth(records: Iterable[Record], base: Case) -> Figure | None:
    """Seconds of an epoch as images, width, latent size and seeds grow, with a line of slope 1."""
    epochs = [r for r in chosen(records, kind="epoch") if r.case.framework != "recipe" and r.epoch_seconds]
    if len({r.case.images for r in epochs}) < 3:
        return None
    x, y = [1], [1.0]
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle("What an epoch costs as it grows")
    for axes, (field, values) in zip(figure.subplots(2, 2).flat, GROWTH.items()):
        wanted = {name: getattr(base, name) for name in ("hidden", "latent_dim", "ensemble")} | {
            "images": GROWTH_IMAGES
        }
        del wanted[field]
        sizes = [_size(value) for value in values]
        for name, of_variant in _by_variant(chosen(epochs, **wanted)):
            found = {_size(getattr(r.case, field)): r.epoch_seconds.median for r in of_variant if r.epoch_seconds}
            x = [size for size in sizes if size in found] or x
            y = [found[size] for size in x] if found else y
            axes.plot(x, y, **_style(name))
        last = np.array([x[0], x[-1]])
        axes.plot(last, y[-1] * last / last[-1], color="grey", linestyle=":", label="proportional")
        axes.set(xscale="log", yscale="log", xlabel=AXES[field], ylabel="seconds an epoch")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        if field == "images":
            axes.legend(frameon=False)
        else:
            axes.set_title(f"{GROWTH_IMAGES:,} images", fontsize=9)
    return figure


def _size(value: Any) -> int:
    size: int = value[0] if isinstance(value, (list, tuple)) else value
    return size


def _one(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _by_variant(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.case.batch_size):
        found.setdefault(record.variant, []).append(record)
    return [(name, found[name]) for name in sorted(found, key=lambda name: [*STYLES, name].index(name))]


def _style(name: str) -> dict[str, Any]:
    return {"linewidth": 1.8, "markersize": 5} | STYLES.get(name, {"label": name, "color": "black"})
