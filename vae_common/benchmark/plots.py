"""The figures of a benchmark's record: throughput, parts of a step, test loss against seconds, growth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vae_common.benchmark.results import chosen
from vae_common.benchmark.suites import GROWTH, GROWTH_IMAGES
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
    """Draws every figure that the record has the numbers for; returns their paths."""
    results = json.loads(json.dumps(record["results"]))  # lists, as in the file, where a fresh record has tuples
    figures = {
        "throughput": throughput(results),
        "parts": parts(results, record["base"]),
        "time_to_loss": time_to_loss(results, record["base"]),
        "growth": growth(results, record["base"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [plotting.save(figure, folder / f"{name}.png") for name, figure in figures.items() if figure]


def throughput(results: Iterable[Any]) -> Figure | None:
    """Images per second against batch size, with the machine's ceiling for these products drawn in."""
    steps = list(chosen(results, kind="step", ensemble=1, precision="float32", model="vae"))
    if len({r["case"]["batch_size"] for r in steps}) < 2:
        return None
    figure, axes = _one("Training throughput against batch size")
    for name, of_variant in _by_variant(steps):
        x = [r["case"]["batch_size"] for r in of_variant]
        axes.plot(x, [r["images_per_second"] for r in of_variant], **_style(name))
    ceilings: dict[int, float] = {}
    for r in steps:
        batch, flops = r["case"]["batch_size"], r["ceilings"]["flops_per_second"]
        ceilings[batch] = max(ceilings.get(batch, 0.0), batch * flops / r["model_flops"])
    axes.plot(
        *zip(*sorted(ceilings.items())), color="black", linestyle="--", label="ceiling: the matrix products alone"
    )
    axes.set(xscale="log", ylim=(0, None), xlabel="batch size", ylabel="images per second")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(sorted(ceilings), [f"{batch:,}" for batch in sorted(ceilings)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    return figure


def parts(results: Iterable[Any], base: Mapping[str, Any]) -> Figure | None:
    """What a step consists of, each part run by itself, beside the whole and its floor."""
    same = {name: base[name] for name in ("batch_size", "precision", "model", "latent_dim")}
    steps = list(chosen(results, kind="step", ensemble=1, **same))
    if not steps:
        return None
    figure, axes = _one("The parts of a step, each run by itself (PyTorch's eagerly), and the whole")
    rows = [(name, of[0]) for name, of in _by_variant(steps)]
    for row, (_, result) in enumerate(rows):
        seconds = result["part_seconds"]
        grown = [seconds[f"part {name}"] for name in ("gather", "forward", "backward")]
        own = dict(zip(PARTS, [grown[0], grown[1] - grown[0], grown[2] - grown[1], seconds["part adam"]]))
        left = 0.0
        for name, colour in PARTS.items():
            width = 1e3 * max(own[name], 0)
            axes.barh(row, width, left=left, height=0.5, color=colour, label=name if not row else None)
            left += width
        whole, floor = 1e3 * seconds["step"], seconds["step"] / result["step_over_floor"]["median"] * 1e3
        axes.plot(
            [whole] * 2, [row - 0.36, row + 0.36], color="black", linewidth=2.5, label=None if row else "whole step"
        )
        axes.plot([floor] * 2, [row - 0.36, row + 0.36], color="black", linestyle=":", label=None if row else "floor")
    axes.set_yticks(range(len(rows)), [_style(name)["label"] for name, _ in rows])
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds", xlim=(0, None))
    axes.legend(frameon=False, ncols=6, loc="upper center", bbox_to_anchor=(0.4, -0.16))
    return figure


def time_to_loss(results: Iterable[Any], base: Mapping[str, Any]) -> Figure | None:
    """Test loss against the seconds of training so far, start included; a line at a loss that all reach."""
    same = {
        "kind": "loss",
        "dataset": base["dataset"],
        "precision": base["precision"],
        "latent_dim": base["latent_dim"],
    }
    curves = [
        r for r in chosen(results, **same) if r["case"]["execution"] != "eager" or r["case"]["framework"] == "torch"
    ]
    if not curves:
        return None
    figure, axes = _one(f"Test loss on {base['dataset']} against seconds of training, start included")
    target = max(min(loss for _, loss in r["test_loss_by_seconds"]) for r in curves)
    for name, of_variant in _by_variant(curves):
        seconds, losses = zip(*of_variant[-1]["test_loss_by_seconds"])
        style = _style(name)
        reached = next(s for s, loss in zip(seconds, losses) if loss <= target)
        axes.plot(seconds, losses, **(style | {"label": f"{style['label']}: {reached:.1f} s"}))
    axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"{target:.1f} nats per image")
    axes.set(xlabel="seconds", ylabel="test loss, nats per image", xlim=(0, None))
    axes.legend(frameon=False)
    return figure


def growth(results: Iterable[Any], base: Mapping[str, Any]) -> Figure | None:
    """Seconds of an epoch as images, width, latent size and seeds grow, with a line of slope 1."""
    epochs = [r for r in chosen(results, kind="epoch") if r["case"]["framework"] != "recipe"]
    if len({r["case"]["images"] for r in epochs}) < 3:
        return None
    x, y = [1], [1.0]
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle("What an epoch costs as it grows")
    for axes, (field, values) in zip(figure.subplots(2, 2).flat, GROWTH.items()):
        wanted = {name: base[name] for name in ("hidden", "latent_dim", "ensemble")} | {"images": GROWTH_IMAGES}
        del wanted[field]
        sizes = [_size(value) for value in values]
        for name, of_variant in _by_variant(chosen(epochs, **wanted)):
            found = {_size(r["case"][field]): r["epoch_seconds"]["median"] for r in of_variant}
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


def _by_variant(results: Iterable[Any]) -> list[tuple[str, list[Any]]]:
    found: dict[str, list[Any]] = {}
    for result in sorted(results, key=lambda r: r["case"]["batch_size"]):
        found.setdefault(f"{result['case']['framework']} {result['case']['execution']}", []).append(result)
    return [(name, found[name]) for name in sorted(found, key=lambda name: [*STYLES, name].index(name))]


def _style(name: str) -> dict[str, Any]:
    return {"linewidth": 1.8, "markersize": 5} | STYLES.get(name, {"label": name, "color": "black"})
