"""All figures of finished trainings: asks each half for its arrays and hands them to plotting.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vae_common import datasets, latents, pixels, plotting
from vae_common.configs import MODELS, Config, InputError, require_count
from vae_common.errors import shown
from vae_common.randomness import some_rows

SHOWN_POINTS = 5000
MOST_STEPS, MOST_SIDE = 100, 60
NAMES = (
    "loss_curves", "latent_scatter", "latent_scatter_aligned", "decoded_grid", "reconstructions", "interpolation",
    "prior_samples", "difference",
)  # fmt: skip
"""Every figure that there may be."""


@dataclass(frozen=True)
class FigureOptions:
    """What a user may choose about the figures."""

    window: tuple[float, float, float, float] | None = None
    """x0 x1 y0 y1 of the decoded grid in latent units; the tutorial's own is -5 10 -10 5."""
    interpolate: tuple[int, int] | None = None
    """Two test images by index; by default the first two of different classes."""
    steps: int = 12
    """Images of the interpolation, 2 to 100."""
    grid_side: int = 15
    """Images along each side of the decoded grid, 1 to 60."""

    def __post_init__(self) -> None:
        require_count("steps", self.steps, 2, MOST_STEPS)
        require_count("grid_side", self.grid_side, 1, MOST_SIDE)
        if self.window is not None:
            window: Any = self.window
            numbers = isinstance(window, (tuple, list)) and len(window) == 4
            numbers = numbers and all(isinstance(edge, (int, float)) and np.isfinite(edge) for edge in window)
            if not (numbers and window[0] < window[1] and window[2] < window[3]):
                raise InputError(f"window: received {shown(window)}, expected finite x0 < x1 and y0 < y1")

    def check(self, dataset: datasets.Dataset) -> None:
        """Raises InputError where the set has no such test image."""
        for index in self.interpolate or ():
            if not 0 <= index < len(dataset.test):
                raise InputError(f"interpolate: received {index}, expected test images 0 to {len(dataset.test) - 1}")


@dataclass(frozen=True)
class Trained:
    """One half's finished model, with the histories of all of its seeds (the model's own first)."""

    half: ModuleType
    model: Any
    histories: Sequence[Sequence[Mapping[str, Any]]]
    seed: int = 0
    """The model's."""


def draw(
    trained: Mapping[str, Trained],
    config: Config,
    dataset: datasets.Dataset,
    folder: Path,
    options: FigureOptions = FigureOptions(),
) -> dict[str, Path]:
    """Draws every figure that the model allows; panels are named by the keys of `trained`.

    Args:
        trained: for example `{"JAX": ..., "PyTorch": ...}`, or one of them.
        folder: made if need be; gets one PNG per figure.

    Returns:
        Figure name -> file, in reading order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _, images = datasets.evaluation_images(dataset, config.data.binarization, "test")
    classes = dataset.test.labels
    first, second = _ends(options, classes)
    some = np.unique(np.linspace(0, len(images) - 1, 10).astype(int))  # from all over: a set may lie in order
    stochastic = MODELS[config.model].posterior
    name = plotting.plain(dataset.name)
    label = f"{MODELS[config.model].class_name} on {name}, {config.network.latent_dim} latent dimensions"
    seeds = " and ".join(dict.fromkeys(str(t.seed) for t in trained.values()))
    label += f", seed{'s' if ' and ' in seeds else ''} {seeds}"
    projected = plotting.projection(config.image_shape[2])
    seen = f"{label}; shown: {projected}" if projected else label
    points_shown = some_rows(len(images), SHOWN_POINTS)
    unit = pixels.unit(images)  # a few images may be so dark that as 8-bit ones they would be refused
    labels = datasets.labels_for(dataset.test, config)
    means = {name: t.half.encode(t.model, images, labels).mean for name, t in trained.items()}
    origin = np.zeros(config.network.latent_dim) if stochastic else None
    planes = {name: latents.plane_of(mean, origin) for name, mean in means.items()}
    others = next(iter(planes.values())).others
    ends = None if labels is None else (int(labels[first]), int(labels[second]))
    clouds, grids, strips, decoded, samples = {}, {}, {}, {}, {}
    for name, t in trained.items():
        plane, points = planes[name], planes[name].project(means[name])
        clouds[name] = plotting.Cloud(points[points_shown], plane.labels)
        window = options.window or (latents.prior_window() if stochastic else latents.data_window(points))
        window = _non_empty(window)
        lifted = plane.lift(latents.grid_points(window, options.grid_side))
        shown = None if labels is None else np.full(len(lifted), labels[first])
        grids[name] = plotting.Grid(t.half.decode(t.model, lifted, shown), window, plane.labels)
        strips[name] = t.half.interpolate(t.model, unit[first], unit[second], options.steps, ends)
        decoded[name] = t.half.reconstruct(t.model, unit[some], None if labels is None else labels[some])
        if MODELS[config.model].latents != "none":
            samples[name] = t.half.sample(t.model, 100)
    originals = unit.astype(np.float32)
    turned = {}
    if len(trained) == 2 and config.network.latent_dim >= 2 and len(images) > 1:
        first_name, second_name = trained
        onto = latents.procrustes_align(means[first_name], means[second_name])
        points = planes[first_name].project(onto)[points_shown]
        turned["latent_scatter_aligned"] = plotting.latent_scatter(
            {first_name: clouds[first_name], second_name: plotting.Cloud(points, planes[first_name].labels)},
            classes[points_shown],
            dataset.class_names,
            f"{second_name}'s latents turned and scaled onto {first_name}'s: {label}",
        )
    projected_away = f" (the other {config.network.latent_dim - 2} components projected away)" if others else ""
    figures = {
        "loss_curves": plotting.loss_curves(
            {name: t.histories for name, t in trained.items()},
            {"reconstruction": config.reconstruction_unit, "kl": config.kl_unit},
            f"Loss: {label.rpartition(', seed')[0]}",
        ),
        "latent_scatter": plotting.latent_scatter(
            clouds, classes[points_shown], dataset.class_names, f"Latent means of test images{projected_away}: {label}"
        ),
        **turned,
        "decoded_grid": plotting.decoded_grid(grids, f"Decoded latent plane{f' ({others})' if others else ''}: {seen}"),
        "reconstructions": plotting.reconstructions(originals[some], decoded, f"Reconstructions: {seen}"),
        "interpolation": plotting.interpolation(
            strips, originals[[first, second]], f"Interpolation of test images {first} and {second}: {seen}"
        ),
    }
    if samples:
        figures["prior_samples"] = plotting.prior_samples(samples, f"Samples from the prior: {seen}")
    if len(trained) == 2:
        figures["difference"] = plotting.difference(decoded, f"Difference of reconstructions: {seen}")
    return {name: plotting.save(figure, folder / f"{name}.png") for name, figure in figures.items()}


def _ends(options: FigureOptions, classes: np.ndarray) -> tuple[int, int]:
    if options.interpolate is None:
        return 0, int(np.argmax(classes != classes[0])) or min(1, len(classes) - 1)
    return options.interpolate


def _non_empty(window: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """A collapsed axis (all latents equal, or one dimension only) gets a width that can be drawn."""
    x0, x1, y0, y1 = window
    return (x0, x1 if x1 > x0 else x0 + 1e-3, y0, y1 if y1 > y0 else y0 + 1e-3)
