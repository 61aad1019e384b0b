"""The comparison as one HTML file that opens without a network: its figures are inside it."""

from __future__ import annotations

import base64
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from vae_common.backend import FRAMEWORKS
from vae_common.comparison.claims import Claim, EquivalenceClaim
from vae_common.comparison.verdicts import percent
from vae_common.config.registry import MODELS
from vae_common.files import write_atomically
from vae_common.metrics.descriptors import DESCRIPTORS, METRICS
from vae_common.metrics.table import title

TEMPLATE, FAULT_TABLE = "report.html.jinja", "fault_table.json"
"""Beside this file: the page, and fault -> tiers, as the conformance suite wrote it."""
_HERE = Path(__file__).parent


def write(
    path: Path,
    summary: Mapping[str, Any],
    claims: Sequence[Claim],
    pictures: Mapping[str, Mapping[str, Path]],
) -> None:
    """Writes the report of a comparison: its summary, its claims and its figures (model -> name -> PNG)."""
    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, loader=loader)
    text = environment.get_template(TEMPLATE).render(
        summary=summary,
        claims=claims,
        over_seeds=[claim for claim in claims if isinstance(claim, EquivalenceClaim)],
        names=FRAMEWORKS,
        titles={model: entry.class_name for model, entry in MODELS.items()},
        halves=list(summary["environment"]),
        faults=json.loads((_HERE / FAULT_TABLE).read_text(encoding="utf-8")),
        label=title,
        seeds=_seeds,
        trained_terms=_trained_terms,
        left_out=_left_out,
        size=_size,
        number=_number,
        mean_and_deviation=_mean_and_deviation,
        percent=percent,
        said=lambda metric: METRICS[metric].says if metric in METRICS else "",
        command=shlex.join(summary["command"]),
        pictures={
            model: {name: _data_uri(picture) for name, picture in drawn.items()} for model, drawn in pictures.items()
        },
    )
    write_atomically(path, text.encode(errors="backslashreplace"))


def _seeds(result: Mapping[str, Any]) -> list[str]:
    """The seed of each pair of runs, or the pair of seeds where the halves have their own."""
    return [" and ".join(dict.fromkeys(map(str, pair))) for pair in zip(*result["seeds"].values())]


def _left_out(result: Mapping[str, Any]) -> list[str]:
    """The metrics of one set that no run has: they need classes, a posterior, or a standard-normal prior."""
    runs = [run for of_half in result["latents_of_each_half"].values() for run in of_half]
    return [title(name) for name in DESCRIPTORS if not any(name in run for run in runs)]


def _trained_terms(result: Mapping[str, Any]) -> list[str]:
    """The terms of training that no test has, in their order."""
    runs = [run for of_half in result["training_by_seed"].values() for run in of_half]
    return list(dict.fromkeys(term for run in runs for term in run if term not in result["losses"]))


def _size(claim: EquivalenceClaim, value: float, signed: bool = True) -> str:
    """A claim's number, in per cent where it is relative to the first half's mean."""
    return percent(value, signed) if claim.relative else f"{value:{'+' if signed else ''}.4f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _mean_and_deviation(described: Sequence[Mapping[str, float | None]], metric: str) -> str:
    """Mean and standard deviation over seeds; of what is counted the range."""
    values = [value for seed in described if (value := seed.get(metric)) is not None]
    if not values:
        return "not defined"
    if metric == "active_units":
        return " to ".join(str(int(value)) for value in dict.fromkeys((min(values), max(values))))
    over = f" \u00b1 {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{over}"


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
