"""A sweep: every combination of some config fields' values, with every seed, in some halves.

Each run is a folder of runs.py; what has finished is skipped, what was stopped goes on. Its table and figure are made
of the runs' summaries.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vae_common import checkpoints, datasets, resume, runs, trainings
from vae_common.configs import Config, InputError
from vae_common.contracts import Terms
from vae_common.records import NonFiniteLoss

TERMS = tuple(f"{name}_nats" for name in Terms._fields)
DIVERGED = "diverged.json"
"""Stands in a run's folder where its loss stopped being finite."""

Values = tuple[tuple[str, Any], ...]
"""One point of the sweep: dotted field and value."""


def points(vary: Sequence[str], base: Config) -> list[Values]:
    """Every combination of specifications, such as `loss.beta=1,4` and `network.hidden=[512],[512,256]`.

    Raises InputError where a field is unknown, a value is none for it, or one combination is refused by the config.
    """
    axes = []
    for text in vary:
        field, equals, values = text.partition("=")
        if not equals or not values:
            raise InputError(f"vary: received {text!r}, expected field=value,value such as loss.beta=1,4")
        axes.append([(field, value) for value in _parsed(values)])
    fields = [axis[0][0] for axis in axes]
    if len(set(fields)) < len(fields):
        raise InputError(f"vary: received {', '.join(fields)}, expected each field once")
    found = list(itertools.product(*axes))
    for point in found:
        config_at(base, point)
    return found


def config_at(base: Config, point: Values) -> Config:
    """The config of one point."""
    values = base.to_json()
    for field, value in point:
        *parts, name = field.split(".")
        if field in ("seed", "image_shape") or (parts == ["data"] and name != "binarization"):
            raise InputError(f"vary: received {field}, expected a field other than the seed and the data")
        place: Any = values
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            raise InputError(f"vary: received {field!r}, expected a field of the config such as loss.beta or model")
        place[name] = value
    return Config.from_json(values)


def name_of(point: Values) -> str:
    """A folder's name: `beta=4-latent_dim=8`."""
    words = (f"{field.rpartition('.')[2]}={json.dumps(value)}" for field, value in point)
    return re.sub(r"[^\w.=+-]+", "_", "-".join(words)).replace('"', "") or "base"


def train(
    halves: Mapping[str, ModuleType],
    base: Config,
    vary: Sequence[str],
    seeds: Sequence[int],
    dataset: datasets.Dataset,
    folder: Path,
    *,
    command: Sequence[str] = (),
    parallel: bool = False,
) -> list[dict[str, Any]]:
    """Trains what has not finished yet; one row per run, in the sweep's order.

    With `parallel` the seeds of a point that has not been begun are trained in one program. A run whose loss stopped
    being finite is a row without losses, and is not tried again.
    """
    rows = []
    for point in points(vary, base):
        for framework, half in halves.items():
            configs = [dataclasses.replace(config_at(base, point), seed=seed) for seed in seeds]
            folders = [folder / f"{framework}-{name_of(point)}-seed{seed}" for seed in seeds]
            for place in folders:
                place.mkdir(parents=True, exist_ok=True)
            points_of = [_begun(place, config, dataset) for place, config in zip(folders, configs)]
            if parallel and len(seeds) > 1 and not any(points_of):
                with contextlib.suppress(NonFiniteLoss):  # which seeds go on is found one by one
                    trainings.train_seeds(half, configs, dataset, folders, command=command)
                points_of = [_begun(place, config, dataset) for place, config in zip(folders, configs)]
            for config, place, stopped in zip(configs, folders, points_of):
                if not any((place / name).exists() for name in ("summary.json", DIVERGED)):
                    try:
                        trainings.train(half, config, dataset, place, command=command, resume=stopped)
                    except NonFiniteLoss as error:
                        runs.Run(place).write_json(DIVERGED, {"error": str(error)})
                rows.append(_row(framework, point, config, place))
    return rows


def _begun(folder: Path, config: Config, dataset: datasets.Dataset) -> checkpoints.Checkpoint | None:
    """Where a run stands; InputError where the folder holds another experiment's, or one on other data."""
    point = resume.begun(folder, config)
    if point is not None:
        runs.require_data(folder, point, dataset)
    return point


def _row(framework: str, point: Values, config: Config, folder: Path) -> dict[str, Any]:
    finished = not (folder / DIVERGED).exists()
    summary = runs.Run(folder).summary() if finished else {"test": dict.fromkeys(TERMS)}
    row = {"framework": framework, **dict(point), "seed": config.seed, "epochs": config.training.epochs}
    row |= {"diverged": not finished, "reconstruction_unit": config.reconstruction_unit}
    row |= {"is_likelihood": config.is_likelihood} | summary["test"]
    return row | {"images_per_second": summary.get("median_images_per_second"), "folder": str(folder)}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def by_point(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Rows averaged over the seeds that did not diverge: the values, the half, what the reconstruction is, and each
    term's mean and standard deviation over seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["framework"], *(json.dumps(row[field]) for field in fields)), []).append(row)
    found = []
    for own in groups.values():
        done = [row for row in own if not row["diverged"]]
        entry = {key: own[0][key] for key in ("framework", *fields, "reconstruction_unit", "is_likelihood")}
        entry |= {"seeds": len(done), "diverged": len(own) - len(done)}
        for term in TERMS:
            values = [row[term] for row in done]
            entry[term] = statistics.fmean(values) if values else None
            entry[f"{term}_std"] = statistics.stdev(values) if len(values) > 1 else None
        found.append(entry)
    return found


def _parsed(text: str) -> list[Any]:
    try:
        return json.loads(f"[{text}]")
    except ValueError:
        return text.split(",")
