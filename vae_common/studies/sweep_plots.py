"""The figure of a sweep: arrays in, matplotlib figure out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from vae_common.backend import FRAMEWORKS
from vae_common.figures.plotting import HALF_STYLES
from vae_common.runs.epoch_records import TERMS

SAID = dict(zip(TERMS, ("total", "reconstruction", "KL")))
MOST_LABEL = 24


def sweep(means: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Figure:
    """Each term over the points of a sweep, in each half; bars are one standard deviation over seeds.

    Args:
        means: one entry per point and half, from `sweeps.by_point`.
        fields: what was varied, dotted.
    """
    units = list(dict.fromkeys(entry["reconstruction_unit"] for entry in means))
    names = list(dict.fromkeys(_label(entry, fields) for entry in means))
    figure = Figure(figsize=(3.2 + 0.55 * len(names) * 1.6, 7.5), layout="constrained")
    axes = figure.subplots(len(SAID), 1, sharex=True)
    for axis, (term, said) in zip(axes, SAID.items()):
        for style, framework in zip(HALF_STYLES, dict.fromkeys(entry["framework"] for entry in means)):
            own = [entry for entry in means if entry["framework"] == framework and entry[term] is not None]
            places = [names.index(_label(entry, fields)) for entry in own]
            spread = [entry[f"{term}_std"] or 0 for entry in own]
            look = {"color": style["color"], "alpha": style.get("alpha"), "markersize": style["markersize"]}
            values = [entry[term] for entry in own]
            axis.errorbar(places, values, spread, fmt="o", capsize=3, label=FRAMEWORKS[framework], **look)
        axis.set_ylabel(f"test {said}")
        axis.grid(axis="y", alpha=0.3)
        axis.margins(x=0.5 / max(len(names), 1), y=0.15)
    axes[0].legend(frameon=False)
    axes[-1].set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < MOST_LABEL else 30)
    figure.suptitle(f"Sweep over {', '.join(fields) or 'seeds'}\nreconstruction: {'; '.join(units)}", fontsize=10)
    return figure


def _label(entry: Mapping[str, Any], fields: Sequence[str]) -> str:
    return "\n".join(f"{field.rpartition('.')[2]} {json.dumps(entry[field])}" for field in fields) or "base"
