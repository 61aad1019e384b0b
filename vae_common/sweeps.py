"""A sweep: every combination of some config fields' values, with every seed, in some halves.

Each run is a folder of runs.py; what has finished is skipped, what was stopped goes on. Its table and figure are made
of the runs' summaries.
"""

from __future__ import annotations

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
        if name == "seed" or field == "data.dataset":
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

    With `parallel` the seeds of a point that has not been begun are trained in one program.
    """
    rows = []
    for point in points(vary, base):
        for framework, half in halves.items():
            configs = [dataclasses.replace(config_at(base, point), seed=seed) for seed in seeds]
            folders = [folder / f"{framework}-{name_of(point)}-seed{seed}" for seed in seeds]
            for place in folders:
                place.mkdir(parents=True, exist_ok=True)
            if parallel and len(seeds) > 1 and not any(any(place.iterdir()) for place in folders):
                trainings.train_seeds(half, configs, dataset, folders, command=command)
            for config, place in zip(configs, folders):
                if not _finished(place, config):
                    trainings.train(half, config, dataset, place, command=command, resume=_stopped(place, config))
                rows.append(_row(framework, point, config, runs.Run(place).summary()))
    return rows


def _finished(folder: Path, config: Config) -> bool:
    if not (folder / "summary.json").exists():
        return False
    _stopped(folder, config)
    return True


def _stopped(folder: Path, config: Config) -> checkpoints.Checkpoint | None:
    """Where a run stands; InputError where the folder holds another experiment's."""
    if not any(folder.iterdir()):
        return None
    point = resume.resume_point(folder)
    if dataclasses.replace(point.config, data=config.data) != config:
        raise InputError(f"output: {folder} holds another experiment, expected this sweep's; choose another --output")
    return point


def _row(framework: str, point: Values, config: Config, summary: Mapping[str, Any]) -> dict[str, Any]:
    row = {"framework": framework, **dict(point), "seed": config.seed, "epochs": config.training.epochs}
    row |= {"reconstruction_unit": summary["reconstruction_unit"]} | summary["test"]
    return row | {"images_per_second": summary["median_images_per_second"], "folder": summary["folder"]}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def by_point(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Rows averaged over seeds: the values, the half, and each term's mean and standard deviation over seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["framework"], *(json.dumps(row[field]) for field in fields)), []).append(row)
    found = []
    for own in groups.values():
        entry = {key: own[0][key] for key in ("framework", *fields)} | {"seeds": len(own)}
        for term in ("total_nats", "reconstruction_nats", "kl_nats"):
            values = [row[term] for row in own]
            entry |= {term: statistics.fmean(values), f"{term}_std": statistics.stdev(values) if len(own) > 1 else None}
        found.append(entry)
    return found


def _parsed(text: str) -> list[Any]:
    try:
        return json.loads(f"[{text}]")
    except ValueError:
        return text.split(",")
