"""Finished runs of both halves laid side by side: read and encoded once, judged, drawn, reported.

This module is handed the halves; it imports neither framework.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.backend import Halves
from vae_common.comparison import report, verdicts
from vae_common.comparison.claims import Claim, EquivalenceClaim
from vae_common.comparison.finished import Finished, read_finished
from vae_common.comparison.lockstep import Drift, claims_in_lockstep
from vae_common.comparison.options import ClaimOptions
from vae_common.comparison.over_seeds import independent, paired, read_pilot
from vae_common.comparison.plan import KIND
from vae_common.comparison.training import Group
from vae_common.config.registry import MODELS
from vae_common.conformance.states import TrainingData
from vae_common.data.seen import Seen, labels_for, training_images
from vae_common.data.splits import Dataset
from vae_common.figures import of_models, plotting
from vae_common.figures.options import FigureOptions
from vae_common.metrics import descriptors, similarity
from vae_common.runs.folder import SUMMARY, Run

MOST_NEIGHBOURS = 6
"""Seeds of a half whose latents are held against each other, one against the next."""


def compare(
    halves: Halves,
    groups: Mapping[str, Group],
    dataset: Dataset,
    folder: Path,
    options: FigureOptions,
    command: Sequence[str],
    wanted: ClaimOptions = ClaimOptions(),
) -> dict[str, Any]:
    """Writes summary.json, figures/ and report.html into `folder`; returns the summary.

    `wanted` adds the verdicts of the claims that it names.
    """
    models: dict[str, dict[str, Any]] = {}
    pictures: dict[str, dict[str, Path]] = {}
    claims: list[Claim] = []
    seen: Seen | None = None
    environments: dict[str, list[dict[str, str]]] = {name: [] for name in halves}
    for model, group in groups.items():
        print(f"comparing {model}", file=sys.stderr)
        finished = read_finished(halves, model, group, dataset, seen)
        seen = finished.images
        models[model] = _measured(finished, dataset.shown)
        own, drift = _claimed(finished, models[model], dataset, wanted)
        models[model] |= {"losses": _losses(finished, own)} | ({"drift": drift} if drift else {})
        pictures[model] = _drawn(finished, dataset.shown, folder / "figures" / model, options, drift)
        claims += own
        for name, runs in finished.runs.items():
            environments[name] += [summary["environment"] for summary in runs.summaries]
    summary = {
        files.KIND: KIND,
        "command": list(command),
        "dataset": dataset.name,
        "source": dataset.source,
        "data": dataset.fingerprint,
        "environment": {name: _joined(found) for name, found in environments.items()},
        "check": wanted.check,
        "found": found_sentences(models),
        "claims": [claim.to_json() for claim in claims],
        "models": models,
        "report": str(folder / "report.html"),
        "figures": [str(path) for drawn in pictures.values() for path in drawn.values()],
    }
    report.write(folder / "report.html", summary, claims, pictures)
    Run(folder).write_json(SUMMARY, summary)
    return summary


def _measured(finished: Finished, dataset: Dataset) -> dict[str, Any]:
    """What the runs of a model are worth, and how alike their latents are."""
    config, runs = finished.config, finished.runs
    means = {name: of_half.means for name, of_half in runs.items()}
    images, classes = finished.images.images, dataset.test.labels
    return {
        "config": config.to_json(),
        "seeds": {name: [saved.config.seed for saved in of_half.checkpoints] for name, of_half in runs.items()},
        "reconstruction_unit": config.reconstruction_unit,
        "kl_unit": config.kl_unit,
        "losses_by_seed": {name: [run["test"] for run in of_half.summaries] for name, of_half in runs.items()},
        "training_by_seed": {
            name: [of.history[-1]["train"] for of in of_half.checkpoints if of.history]
            for name, of_half in runs.items()
        },
        "objective_unit": config.objective_unit,
        "latents_between_halves": [similarity.similarities(*pair) for pair in zip(*means.values()) if len(pair) == 2],
        "latents_between_seeds": {
            name: [similarity.similarities(a, b) for a, b in pairwise(own[:MOST_NEIGHBOURS])]
            for name, own in means.items()
        },
        "latents_of_each_half": {
            name: [descriptors.describe(*p, classes, images, config.entry.standard_prior) for p in of_half.posteriors]
            for name, of_half in runs.items()
        },
        "median_images_per_second": {
            name: [run["median_images_per_second"] for run in of_half.summaries] for name, of_half in runs.items()
        },
        "runs": {name: [str(folder) for folder in of_half.folders] for name, of_half in runs.items()},
    }


def _claimed(
    finished: Finished, measured: Mapping[str, Any], dataset: Dataset, wanted: ClaimOptions
) -> tuple[list[Claim], Drift]:
    """The claims that are wanted of a model, and how far the halves drift apart where that was followed."""
    model, config, losses = finished.model, finished.config, measured["losses_by_seed"]
    if wanted.check == "paired":
        return paired(model, losses), {}
    if wanted.check == "independent":
        seeds = [seed for of_half in measured["seeds"].values() for seed in of_half]
        pilot = read_pilot(wanted.pilot, config, seeds, dataset.fingerprint) if wanted.pilot else None
        means = [mean for of_half in finished.runs.values() for mean in of_half.means]
        return independent(model, losses, measured["latents_of_each_half"], means, pilot), {}
    if wanted.check == "lockstep":
        held = dataclasses.replace(dataset, train=dataset.train.shown)
        data = TrainingData(training_images(held, config.data.binarization), labels_for(held.train, config))
        return claims_in_lockstep(finished.halves, model, config, data, wanted.lockstep_steps)
    return [], {}


def _losses(finished: Finished, claims: Sequence[Claim]) -> dict[str, Any]:
    """The test losses compared, by the margins of the claims on them where there are any."""
    shared = finished.config.training.randomness != "native"
    margins = dict(verdicts.PAIRED_MARGINS if shared else verdicts.NATIVE_MARGINS)
    for claim in claims:
        if isinstance(claim, EquivalenceClaim) and not claim.paired and claim.metric in margins:
            margins[claim.metric] = claim.result.margin
    tests = {name: [run["test"] for run in of_half.summaries] for name, of_half in finished.runs.items()}
    return loss_comparison(tests, shared, margins)


def _drawn(finished: Finished, dataset: Dataset, folder: Path, options: FigureOptions, drift: Drift) -> dict[str, Path]:
    """A model's figures: name -> file."""
    pictures = of_models.render(finished.trained(), finished.config, dataset, finished.images, folder, options)
    if drift:
        title = f"{MODELS[finished.model].class_name}: the halves apart, step by step"
        pictures["drift"] = plotting.save(plotting.drift(drift, title), folder / "drift.png")
    return pictures


def found_sentences(models: Mapping[str, Any]) -> list[str]:
    """A sentence that can be quoted on each model's test total; none where one half alone was trained."""
    found = []
    for model, result in models.items():
        verdict = verdicts.from_record(result["losses"]["total_nats"].get("verdict"))
        if verdict is not None:
            found.append(verdicts.sentence(MODELS[model].class_name, "total_nats", verdict))
    return found


def _joined(environments: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Where a half's runs were made, not where they are compared; several places are joined."""
    keys = dict.fromkeys(key for place in environments for key in place)
    return {key: "; ".join(dict.fromkeys(place.get(key, "unknown") for place in environments)) for key in keys}


def outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a comparison's summary that its command prints: test losses and where the report is."""
    models = {}
    for model, result in summary["models"].items():
        losses = result["losses"]
        models[model] = {
            half: {term: values[half]["mean"] for term, values in losses.items()} for half in summary["environment"]
        }
        if len(summary["environment"]) == 2:
            models[model]["relative_difference"] = {
                term: values["relative_difference"] for term, values in losses.items()
            }
    judged = [{key: claim[key] for key in ("claim", "model", "verdict", "holds")} for claim in summary["claims"]]
    return {"found": summary["found"], "models": models, "claims": judged, "report": summary["report"]}


def loss_comparison(
    tests: Mapping[str, Sequence[Mapping[str, float]]], are_paired: bool, margins: Mapping[str, float]
) -> dict[str, Any]:
    """The halves' test terms over seeds, term by term.

    Args:
        tests: framework -> one dict of terms per seed, seeds in the same order. One or two frameworks.
        are_paired: whether the same seeds had the same randomness in both halves.
        margins: of the relative difference, by term; one that is not among them has the KL's.

    Returns:
        For each term: each half's mean and standard deviation over seeds (None with fewer than 2) and,
        of two halves, the difference of the means relative to the first half's (None where that is 0)
        and the `verdict` on it (see verdicts.py; None where the term is always 0).
    """
    compared: dict[str, dict[str, Any]] = {}
    for term in next(iter(tests.values()))[0]:
        values = {name: [terms[term] for terms in of_seeds] for name, of_seeds in tests.items()}
        means = {name: statistics.fmean(v) for name, v in values.items()}
        stds = {name: statistics.stdev(v) if len(v) > 1 else None for name, v in values.items()}
        compared[term] = {name: {"mean": means[name], "std": stds[name]} for name in tests}
        if len(tests) == 2:
            first, second = means.values()
            one, other = values.values()
            compared[term]["relative_difference"] = (second - first) / abs(first) if first else None
            margin = margins.get(term, margins["kl_nats"])
            compared[term]["verdict"] = verdicts.as_record(verdicts.judge(one, other, margin, are_paired))
    return compared
