"""The figures of trained models: each asks the halves for its arrays and hands them to plotting.py.

A figure is one function of `Subject`, registered under the name of its file; None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vae_common import randomness
from vae_common.backend import Half
from vae_common.config import Config
from vae_common.config.registry import size
from vae_common.data import pixels
from vae_common.data.seen import Seen
from vae_common.data.splits import Dataset
from vae_common.figures import plotting
from vae_common.figures.options import FigureOptions
from vae_common.figures.planes import Plane, Window, data_window, grid_points, plane_of, prior_window, procrustes_align
from vae_common.randomness import some_rows

SHOWN_POINTS, SHOWN_IMAGES, SHOWN_SAMPLES, SHOWN_CHANNELS = 5000, 10, 100, 4


@dataclass(frozen=True)
class TrainedModel:
    """One half's finished model, with the histories of all of its seeds (the model's own first)."""

    half: Half
    model: Any
    histories: Sequence[Sequence[Mapping[str, Any]]]
    means: np.ndarray
    """Its latent means of the test images, flat, (N, n)."""
    seed: int = 0
    """The model's."""


@dataclass(frozen=True)
class Subject:
    """What figures are drawn of: one or two trained models and the images that they are shown on."""

    trained: Mapping[str, TrainedModel]
    """For example `{"JAX": ..., "PyTorch": ...}`: the names are those of the panels."""
    config: Config
    dataset: Dataset
    seen: Seen
    """The test images, as the models see them."""
    options: FigureOptions

    @property
    def classes(self) -> np.ndarray:
        """The test images' labels, (N,); -1 for none."""
        return self.dataset.test.labels

    @property
    def standard_prior(self) -> bool:
        """Whether the latents are drawn, and standard normal under the prior."""
        return self.config.entry.draws and self.config.entry.standard_prior

    @property
    def spatial(self) -> bool:
        """Whether a latent is a grid, (height, width, channels)."""
        return len(self.config.latent_shape) == 3

    @property
    def latent_dim(self) -> int:
        """How many numbers a latent has."""
        return size([self.config.latent_shape])

    @cached_property
    def images(self) -> np.ndarray:
        """The test images in [0, 1]: a few may be so dark that as 8-bit ones they would be refused."""
        return pixels.unit(self.seen.images)

    @cached_property
    def some(self) -> np.ndarray:
        """Indices of a few test images, from all over the set: it may lie in order."""
        return np.unique(np.linspace(0, len(self.images) - 1, SHOWN_IMAGES).astype(int))

    @cached_property
    def points(self) -> np.ndarray:
        """Indices of the test images whose latents are shown."""
        return some_rows(len(self.images), SHOWN_POINTS)

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The two test images that are interpolated: by default the first two of different classes."""
        if self.options.interpolate is not None:
            return self.options.interpolate
        return 0, int(np.argmax(self.classes != self.classes[0])) or min(1, len(self.classes) - 1)

    @cached_property
    def planes(self) -> dict[str, Plane]:
        """The plane of each model's latent space that is shown."""
        origin = np.zeros(self.latent_dim) if self.standard_prior else None
        return {name: plane_of(trained.means, origin) for name, trained in self.trained.items()}

    @property
    def others(self) -> str:
        """Where the shown planes lie along all other dimensions; empty where there are none."""
        return next(iter(self.planes.values())).others

    @property
    def label(self) -> str:
        """The model, the set and the latent space, for titles."""
        name = plotting.plain(self.dataset.name)
        latents = f"{self.latent_dim} latent dimensions"
        if self.spatial:
            latents = f"latents {'x'.join(map(str, self.config.latent_shape))}"
        return f"{self.config.entry.class_name} on {name}, {latents}"

    @property
    def label_with_seeds(self) -> str:
        """The label, with the seeds of the models that are shown."""
        seeds = list(dict.fromkeys(str(trained.seed) for trained in self.trained.values()))
        return f"{self.label}, seed{'s' if len(seeds) > 1 else ''} {' and '.join(seeds)}"

    @property
    def label_of_images(self) -> str:
        """The label of what shows images: it says how, where their channels are not what is seen."""
        projected = plotting.projection(self.config.image_shape[2])
        return f"{self.label_with_seeds}; shown: {projected}" if projected else self.label_with_seeds

    def window(self, name: str) -> Window:
        """The part of a model's plane that is decoded: asked for, the prior's, or what holds most latents."""
        if self.options.window is not None:
            return self.options.window
        if self.standard_prior:
            return prior_window()
        return data_window(self.planes[name].project(self.trained[name].means))

    @cached_property
    def layers(self) -> list[np.ndarray]:
        """Where each of several stochastic layers stands in the noise, the top one first; empty where there is one."""
        sizes = [size([shape]) for shape in self.config.layer_shapes]
        if len(sizes) < 2:
            return []
        parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        return parts if self.config.entry.from_the_top else parts[::-1]

    @cached_property
    def decoded(self) -> dict[str, np.ndarray]:
        """What each model makes of a few test images."""
        images, labels = self.images[self.some], self.labels_of(self.some)
        return {name: of.half.reconstruct(of.model, images, labels) for name, of in self.trained.items()}

    def labels_of(self, rows: Any) -> np.ndarray | None:
        """The labels that the model is given with these test images."""
        return None if self.seen.labels is None else self.seen.labels[rows]


FigureOf = Callable[[Subject], Figure | None]
FIGURES: dict[str, FigureOf] = {}
"""Every figure that there may be, by its file's name, in reading order."""


def _figure(function: FigureOf) -> FigureOf:
    FIGURES[function.__name__] = function
    return function


def render(
    trained: Mapping[str, TrainedModel],
    config: Config,
    dataset: Dataset,
    seen: Seen,
    folder: Path,
    options: FigureOptions = FigureOptions(),
) -> dict[str, Path]:
    """Draws every figure that the model allows; panels are named by the keys of `trained`.

    Args:
        trained: for example `{"JAX": ..., "PyTorch": ...}`, or one of them.
        seen: the test images, from `data.seen.seen_by`.
        folder: made if need be; gets one PNG per figure.

    Returns:
        Figure name -> file, in reading order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subject = Subject(trained, config, dataset, seen, options)
    drawn = {name: figure_of(subject) for name, figure_of in FIGURES.items()}
    return {name: plotting.save(figure, folder / f"{name}.png") for name, figure in drawn.items() if figure is not None}


@_figure
def loss_curves(subject: Subject) -> Figure:
    """Training and test losses of every seed."""
    config = subject.config
    histories = {name: trained.histories for name, trained in subject.trained.items()}
    units = {
        "reconstruction_nats": config.reconstruction_unit,
        "kl_nats": config.kl_unit,
        "objective_nats": config.objective_unit,
    }
    return plotting.loss_curves(histories, units, f"Loss: {subject.label}")


@_figure
def latent_scatter(subject: Subject) -> Figure:
    """Where the test images lie in each model's plane."""
    hidden = subject.latent_dim - 2
    away = f" (the other {hidden} components projected away)" if subject.others else ""
    title = f"Latent means of test images{away}: {subject.label_with_seeds}"
    clouds = {name: _cloud(subject, name) for name in subject.trained}
    return plotting.latent_scatter(clouds, subject.classes[subject.points], subject.dataset.class_names, title)


@_figure
def latent_scatter_aligned(subject: Subject) -> Figure | None:
    """The second model's latents turned and scaled onto the first's."""
    if len(subject.trained) != 2 or subject.latent_dim < 2 or len(subject.images) < 2:
        return None
    first, second = subject.trained
    plane = subject.planes[first]
    onto = procrustes_align(subject.trained[first].means, subject.trained[second].means)
    turned = plotting.Cloud(plane.project(onto)[subject.points], plane.labels)
    clouds = {first: _cloud(subject, first), second: turned}
    title = f"{second}'s latents turned and scaled onto {first}'s: {subject.label_with_seeds}"
    return plotting.latent_scatter(clouds, subject.classes[subject.points], subject.dataset.class_names, title)


@_figure
def latent_maps(subject: Subject) -> Figure | None:
    """Of latents that lie on a grid: a few test images, their latents channel by channel, and what each place costs."""
    if not subject.spatial:
        return None
    images, labels, maps = subject.images[subject.some], subject.labels_of(subject.some), {}
    for name, of in subject.trained.items():
        mean, log_std = of.half.encode(of.model, images, labels)
        kl = None
        if log_std is not None and subject.standard_prior:
            kl = (0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std).sum(-1)
        maps[name] = plotting.LatentMaps(mean[..., :SHOWN_CHANNELS], kl)
    of_all = subject.config.latent_shape[-1]
    first = f" (the first {SHOWN_CHANNELS} of {of_all} channels)" if of_all > SHOWN_CHANNELS else ""
    return plotting.latent_maps(images.astype(np.float32), maps, f"Latent means{first}: {subject.label_of_images}")


@_figure
def decoded_grid(subject: Subject) -> Figure | None:
    """The latent plane, decoded. Of latents on a grid two directions of many show nothing."""
    if subject.spatial:
        return None
    grids, side, first = {}, subject.options.grid_side, subject.ends[0]
    for name, trained in subject.trained.items():
        plane, window = subject.planes[name], _non_empty(subject.window(name))
        lifted = plane.lift(grid_points(window, side)).reshape(-1, *subject.config.latent_shape)
        given = None if subject.seen.labels is None else np.full(len(lifted), subject.seen.labels[first])
        grids[name] = plotting.Grid(trained.half.decode(trained.model, lifted, given), window, plane.labels)
    others = f" ({subject.others})" if subject.others else ""
    return plotting.decoded_grid(grids, f"Decoded latent plane{others}: {subject.label_of_images}")


@_figure
def reconstructions(subject: Subject) -> Figure:
    """A few test images above what each model makes of them."""
    originals = subject.images.astype(np.float32)[subject.some]
    return plotting.reconstructions(originals, subject.decoded, f"Reconstructions: {subject.label_of_images}")


@_figure
def interpolation(subject: Subject) -> Figure:
    """From one test image to another, along the line between their latents."""
    first, second = subject.ends
    given = subject.labels_of([first, second])
    ends = None if given is None else (int(given[0]), int(given[1]))
    strips = {
        name: of.half.interpolate(of.model, subject.images[first], subject.images[second], subject.options.steps, ends)
        for name, of in subject.trained.items()
    }
    originals = subject.images.astype(np.float32)[[first, second]]
    title = f"Interpolation of test images {first} and {second}: {subject.label_of_images}"
    return plotting.interpolation(strips, originals, title)


@_figure
def prior_samples(subject: Subject) -> Figure | None:
    """Decoded draws from the prior."""
    if not subject.config.entry.generates:
        return None
    samples = {name: of.half.sample(of.model, SHOWN_SAMPLES) for name, of in subject.trained.items()}
    return plotting.prior_samples(samples, f"Samples from the prior: {subject.label_of_images}")


@_figure
def samples_by_layer(subject: Subject) -> Figure | None:
    """Of several stochastic layers: draws that share what stands above a layer, which is drawn anew with all below."""
    if not subject.layers:
        return None
    noise = randomness.prior_samples(0, SHOWN_IMAGES + 1, subject.config.prior_dim)
    names, rows = ["all anew", *(f"from layer {place} on" for place in range(2, len(subject.layers) + 1))], []
    for place in range(len(subject.layers)):
        mixed, below = np.repeat(noise[:1], SHOWN_IMAGES, 0), np.concatenate(subject.layers[place:])
        mixed[:, below] = noise[1:][:, below]
        rows.append(mixed)
    decoded = {name: [_generated(subject, of, row) for row in rows] for name, of in subject.trained.items()}
    title = f"Samples, drawn anew from each layer on, the top one first: {subject.label_of_images}"
    return plotting.rows_of_halves(names, decoded, title)


@_figure
def traversals(subject: Subject) -> Figure | None:
    """Of several stochastic layers: a draw from the prior, and in each layer the latent that changes it most, moved."""
    if not subject.layers:
        return None
    base, steps = randomness.prior_samples(0, 1, subject.config.prior_dim)[0], np.linspace(-2.5, 2.5, SHOWN_IMAGES)
    decoded = {}
    for name, of in subject.trained.items():
        found = []
        for layer in subject.layers:
            ends = [_generated(subject, of, _moved(base, layer, far)) for far in (-2.0, 2.0)]
            most = layer[int(np.abs(ends[1] - ends[0]).mean((1, 2, 3)).argmax())]
            found.append(_generated(subject, of, np.concatenate([_moved(base, [most], step) for step in steps])))
        decoded[name] = found
    names = [f"layer {place}" for place in range(1, len(subject.layers) + 1)]
    title = f"One latent of each layer, -2.5 to 2.5 sigma of its prior, the top one first: {subject.label_of_images}"
    return plotting.rows_of_halves(names, decoded, title)


@_figure
def difference(subject: Subject) -> Figure | None:
    """Where two models' reconstructions differ."""
    if len(subject.trained) != 2:
        return None
    return plotting.difference(subject.decoded, f"Difference of reconstructions: {subject.label_of_images}")


def _generated(subject: Subject, trained: TrainedModel, noise: np.ndarray) -> np.ndarray:
    """Images of such noise, all of the first class where the model is given any."""
    labels = np.zeros(len(noise), int) if subject.config.network.classes else None
    return trained.half.generate(trained.model, noise, labels)


def _moved(noise: np.ndarray, places: Any, to: float) -> np.ndarray:
    """The noise (n,) once for each of these places, which has that value there."""
    moved = np.repeat(noise[None], len(places), 0)
    moved[np.arange(len(places)), places] = to
    return moved


def _cloud(subject: Subject, name: str) -> plotting.Cloud:
    plane = subject.planes[name]
    return plotting.Cloud(plane.project(subject.trained[name].means)[subject.points], plane.labels)


def _non_empty(window: Window) -> Window:
    """A collapsed axis (all latents equal, or one dimension only) gets a width that can be drawn."""
    x0, x1, y0, y1 = window
    return (x0, x1 if x1 > x0 else x0 + 1e-3, y0, y1 if y1 > y0 else y0 + 1e-3)
