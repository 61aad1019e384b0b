"""The shared figures: arrays in, matplotlib figure out, for either framework.

Every function takes its arrays under the names of the panels that it lays side by side, for example
`{"JAX": ..., "PyTorch": ...}`; one name gives one panel. Images are (N, height, width, channels) in [0, 1]: one channel
is shown as grey, three as RGB, four as RGB with alpha over white, any other number as the mean over channels
(`projection` says which). Colours are told apart by colour-blind people too: Petroff's ten for classes, two of Okabe
and Ito's for the halves; classes also carry their names in the plane.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from PIL import Image, PngImagePlugin

from vae_common.contracts import CODE_TERMS
from vae_common.errors import InputError, one_line
from vae_common.files import require_regular, write_atomically
from vae_common.metrics.table import title as title_of

CLASS_COLOURS = matplotlib.color_sequences["petroff10"]
CLASS_MARKERS = "o^sDvP*X<>"
HALF_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linewidth": 4.5, "alpha": 0.45, "markersize": 13},
    {"color": "#D55E00", "linewidth": 1.4, "markersize": 5},
)
DPI = 110
SOFTWARE = "twin-vae"
"""Stands in a figure's file, so that no other picture is overwritten."""
LONGEST_NAME = 60
LETTERS_AN_INCH = 10
"""Of a figure's title; a longer one goes on in the next line."""
LEGEND_ROWS = 18
PADDING, MOST_MOVES = 4, 200
"""Pixels around a class's name that no other covers, and how often names are moved apart."""
MANY = 3
MOST_PANELS = 4
"""Of loss curves in a row."""
"""Histories that are drawn as a mean in a band."""
NAMED_CLASSES = 20  # more names than that would cover the plane


class Grid(NamedTuple):
    """Decoded images of a window of a latent plane, row by row from the top left."""

    images: np.ndarray
    """Shape (side * side, height, width, channels)."""
    window: tuple[float, float, float, float]
    """x0, x1, y0, y1 in latent units."""
    labels: tuple[str, str]
    """Of the x and y axis."""


class LatentMaps(NamedTuple):
    """Latents on a grid, of some images."""

    means: np.ndarray
    """Shape (N, height, width, channels), in latent units."""
    kl: np.ndarray | None
    """What each place costs, (N, height, width), in nats; None where there is no KL."""


class Cloud(NamedTuple):
    """Latents of labelled images in a plane."""

    points: np.ndarray
    """Shape (N, 2), in latent units."""
    labels: tuple[str, str]
    """Of the x and y axis; an empty second one means a one-dimensional space."""


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG with a palette of 256 colours, small enough for a README, whole or not at all."""
    written = io.BytesIO()
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    marks = PngImagePlugin.PngInfo()
    marks.add_text("Software", SOFTWARE)
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(written, format="PNG", optimize=True, pnginfo=marks)
    write_atomically(path, written.getvalue())
    return Path(path)


def require_replaceable(path: Path, of_a_run: bool = False) -> None:
    """Raises InputError where there is something at `path` that `save` did not write.

    Earlier versions left no mark; in a run's own folder their figures are known by being pictures.
    """
    if not path.exists():
        return
    try:
        require_regular(path, "output")
        with Image.open(path) as image:
            ours = image.info.get("Software") == SOFTWARE or (of_a_run and image.mode == "P")
    except (InputError, OSError, ValueError, SyntaxError):
        ours = False
    if not ours:
        raise InputError(f"output: {path} exists and is no figure of this program; choose another folder")


def plain(text: object) -> str:
    """A user's text as a figure shows it: on one line, shortened, and never read as mathematics."""
    return one_line(text, LONGEST_NAME).replace("$", r"\$")


def projection(channels: int) -> str:
    """How images of that many channels are shown, where that is not all there is to them; else nothing."""
    if channels in (1, 3):
        return ""
    return "RGB over white" if channels == 4 else f"mean of {channels} channels"


def latent_scatter(clouds: Mapping[str, Cloud], classes: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Where the images lie in the latent plane, coloured by class; `classes` (N,), -1 for none."""
    figure = _figure(4.6 * len(clouds) + 1.1 * -(-len(np.unique(classes)) // LEGEND_ROWS), 4.7, title)
    size = float(np.clip(12_000 / len(classes), 6, 28))
    labelled: list[tuple[Axes, list[tuple[float, float, str, Any]]]] = []
    for axes, (name, cloud) in zip(_row(figure, len(clouds)), clouds.items()):
        x, y = cloud.points.T
        if not cloud.labels[1]:  # one dimension: a row per class, spread a little
            y = classes + 0.35 * np.sin(12.9898 * np.arange(len(x)))
        named: list[tuple[float, float, str, Any]] = []
        for label in np.unique(classes):
            mine = classes == label
            style = _class_style(label)
            axes.scatter(x[mine], y[mine], s=size, alpha=0.6, linewidths=0, rasterized=True, **style)
            if label >= 0 and len(class_names) <= NAMED_CLASSES:
                named.append((np.median(x[mine]), np.median(y[mine]), plain(class_names[label]), style["color"]))
        axes.set(title=name, xlabel=cloud.labels[0], ylabel=cloud.labels[1] or "class")
        labelled.append((axes, named))
    handles = [
        matplotlib.lines.Line2D(
            [], [], linestyle="", markersize=7, label=plain(class_names[label]), **_class_style(label)
        )
        for label in np.unique(classes)
        if label >= 0
    ]
    if handles:
        columns = -(-len(handles) // LEGEND_ROWS)
        figure.legend(handles=handles, loc="outside right center", title="class", frameon=False, ncols=columns)
    figure.draw_without_rendering()  # the layout decides where the axes are
    for axes, named in labelled:
        _name_classes(axes, named)
    return figure


def decoded_grid(grids: Mapping[str, Grid], title: str) -> Figure:
    """What the decoder makes of each place of a window of the latent plane, at that place."""
    figure = _figure(5.0 * len(grids), 5.2, title)
    for axes, (name, grid) in zip(_row(figure, len(grids)), grids.items()):
        side = round(len(grid.images) ** 0.5)
        axes.imshow(tile(grid.images, side), extent=grid.window, aspect="auto", interpolation="nearest", **_GREY)
        axes.set(title=name, xlabel=grid.labels[0], ylabel=grid.labels[1])
        axes.set_box_aspect(1)
        if not grid.labels[1]:
            axes.set_yticks([])
    return figure


def interpolation(strips: Mapping[str, np.ndarray], ends: np.ndarray, title: str) -> Figure:
    """The decoded line between two images' latents; `ends` holds the two images themselves."""
    steps = len(next(iter(strips.values())))
    figure = _figure(1.6 + 0.75 * (steps + 2), 0.85 * len(strips) + 1.1, title)
    rows = [np.stack([ends[0], *strip, ends[1]]) for strip in strips.values()]
    fractions = [f"{t:.2f}".rstrip("0").rstrip(".") for t in np.linspace(0, 1, steps)]
    _image_rows(figure, list(strips), rows, ["image", *fractions, "image"])
    return figure


def reconstructions(originals: np.ndarray, decoded: Mapping[str, np.ndarray], title: str) -> Figure:
    """Originals over their reconstructions."""
    figure = _figure(1.4 + 0.75 * len(originals), 0.85 * (len(decoded) + 1) + 0.6, title)
    _image_rows(figure, ["original", *decoded], [originals, *decoded.values()])
    return figure


def rows_of_halves(names: Sequence[str], images: Mapping[str, Sequence[np.ndarray]], title: str) -> Figure:
    """Named rows of images, those of one panel below those of another."""
    every = [(f"{panel}: {name}", row) for panel, rows in images.items() for name, row in zip(names, rows)]
    figure = _figure(2.4 + 0.75 * len(every[0][1]), 0.8 * len(every) + 0.7, title)
    _image_rows(figure, [name for name, _ in every], [row for _, row in every])
    return figure


def prior_samples(samples: Mapping[str, np.ndarray], title: str) -> Figure:
    """Decoded draws from the prior; the same latents in every panel."""
    figure = _figure(4.2 * len(samples), 4.6, title)
    for axes, (name, images) in zip(_row(figure, len(samples)), samples.items()):
        axes.imshow(tile(images, round(len(images) ** 0.5)), interpolation="nearest", **_GREY)
        axes.set(title=name, xticks=[], yticks=[])
    return figure


def loss_curves(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], units: Mapping[str, str], title: str
) -> Figure:
    """Every term against the epoch; each name holds one history per seed.

    A history is the list of epoch records that a run keeps. `units` names what terms are measured in, by their keys. A
    KL that is always zero is left out, and an objective that is the total. Of three histories or more the mean is
    drawn, in a band of one standard deviation.
    """
    records = [record for runs in histories.values() for history in runs for record in history]
    held_out = next((s for s in ("validation", "test") if records and s in records[0]), None)
    terms = _shown_terms(records)
    most = max(map(len, histories.values()), default=1)
    banded = most >= MANY
    over = (
        f" (mean of {most} seeds, band: one standard deviation)" if banded else f" ({most} seeds)" if most > 1 else ""
    )
    columns = min(len(terms), MOST_PANELS)
    rows = -(-len(terms) // columns)
    figure = _figure(4.4 * columns + 0.8, 0.3 + 3.9 * rows, title + over)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(terms) :]:
        axes.remove()
    for axes, term in zip(panels, terms):
        for style, (name, runs) in zip(HALF_STYLES, histories.items()):
            for split, dashes in (("train", "-"), (held_out, "--")):
                if split is not None and all(term in record[split] for history in runs for record in history):
                    curves = [[record[split][term] for record in history] for history in runs]
                    epochs = [[record["epoch"] for record in history] for history in runs]
                    _curves(axes, epochs, curves, f"{name}, {split}", {**style, "linestyle": dashes}, banded)
        axes.set(title=title_of(term), xlabel="epoch", ylabel="per batch" if term in CODE_TERMS else "per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if max((record["epoch"] for record in records), default=1) <= 1:
            axes.set_xlim(0, 2)
        axes.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False)
    named = "; ".join(f"{title_of(term)}: {units[term]}" for term in terms if term in units)
    figure.supxlabel(named or units["reconstruction_nats"], fontsize="small", color="0.35")
    return figure


def _shown_terms(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the terms that loss curves show: the total, and what says more than it."""
    terms = list(dict.fromkeys(term for record in records for term in record["train"])) or ["total_nats"]
    if not any(record["train"]["kl_nats"] for record in records):
        terms = [term for term in terms if term not in ("reconstruction_nats", "kl_nats")]
    if all(_near(record["train"].get("objective_nats"), record["train"]["total_nats"]) for record in records):
        terms = [term for term in terms if term != "objective_nats"]
    return terms


def _near(objective: float | None, total: float) -> bool:
    """Whether an objective, where there is one, is the total but for rounding."""
    return objective is None or math.isclose(objective, total, rel_tol=1e-5)


def _curves(
    axes: Axes,
    epochs: Sequence[Sequence[int]],
    curves: Sequence[Sequence[float]],
    label: str,
    style: Mapping[str, Any],
    banded: bool,
) -> None:
    """One line a seed, or their mean in a band; one entry in the legend for all."""
    dot = "o" if max(map(len, curves), default=0) == 1 else None  # a line through one point cannot be seen
    if not banded:
        for i, (x, y) in enumerate(zip(epochs, curves)):
            axes.plot(x, y, marker=dot, label=label if i == 0 else "_", **style)
        return
    length = min(map(len, curves))
    values, x = np.array([curve[:length] for curve in curves]), epochs[0][:length]
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    axes.plot(x, mean, marker=dot, label=label, **style)
    axes.fill_between(x, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, linewidth=0)


def difference(pair: Mapping[str, np.ndarray], title: str) -> Figure:
    """Two halves' images, and the second minus the first; the colour scale is the data's own."""
    (first, a), (second, b) = pair.items()
    delta = (b.astype(np.float64) - a).mean(-1)
    figure = _figure(2.2 + 0.75 * len(a), 3.4, title)
    limit = float(np.abs(delta).max()) or 1e-16
    rows = _image_rows(figure, [first, second, f"{second} - {first}"], [a, b, np.zeros_like(a)])
    for axes, values in zip(rows[2], delta):
        shown = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    scale = ScalarFormatter()
    scale.set_powerlimits((-2, 2))
    figure.colorbar(shown, ax=list(rows.flat), shrink=0.8, format=scale, label="difference in pixel mean")
    return figure


def latent_maps(images: np.ndarray, maps: Mapping[str, LatentMaps], title: str) -> Figure:
    """Images over their latents, a row for each channel, and the KL of each place; a colour scale for either."""
    most = {
        "latent mean": max(float(np.abs(of.means).max()) for of in maps.values()) or 1e-16,
        "KL of a place, nats": max((float(of.kl.max()) for of in maps.values() if of.kl is not None), default=0.0),
    }
    rows: list[tuple[str, np.ndarray, str]] = []
    scales: dict[str, tuple[Any, Any]] = {}
    for name, of in maps.items():
        rows += [(f"{name}: {i + 1}", channel, "latent mean") for i, channel in enumerate(np.moveaxis(of.means, -1, 0))]
        rows += [] if of.kl is None else [(f"{name}: KL", of.kl, "KL of a place, nats")]
    figure = _figure(2.6 + 0.75 * len(images), 0.8 * len(rows) + 2, title)
    names = ["image", *(name for name, *_ in rows)]
    table = _image_rows(figure, names, [images, *[np.zeros_like(images)] * len(rows)])
    for row, (_, values, what) in zip(table[1:], rows):
        signed = what == "latent mean"
        for axes, own in zip(row, values):
            style = {"cmap": "RdBu_r", "vmin": -most[what]} if signed else {"cmap": "viridis", "vmin": 0}
            shown = axes.imshow(own, interpolation="nearest", vmax=most[what], **style)
        scales[what] = shown, "right" if signed else "bottom"
    for what, (shown, where) in scales.items():
        figure.colorbar(shown, ax=list(table.flat), location=where, shrink=0.6, aspect=40, label=what)
    return figure


def drift(differences: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """How far the halves are apart after each step; dtype -> quantity -> one number per step."""
    figure = _figure(9.0, 4.2, title)
    for axes, (quantities, label) in zip(
        _row(figure, 2),
        (
            (("total", "reconstruction", "kl"), "relative difference of the loss"),
            (("parameters",), "largest difference of a parameter / learning rate"),
        ),
    ):
        for dtype, style in zip(differences, HALF_STYLES):
            for quantity, dashes in zip(quantities, ("-", "--", ":")):
                values = np.asarray(differences[dtype][quantity])
                shown = np.where(values > 0, values, np.nan)  # an exact zero has no logarithm
                colour, name = style["color"], "KL" if quantity == "kl" else quantity
                axes.semilogy(np.arange(1, len(values) + 1), shown, dashes, color=colour, label=f"{dtype}, {name}")
        axes.set(xlabel="step (a gap: equal to the last bit)", ylabel=label)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize="small")
    return figure


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (N, height, width, channels) as one picture, row by row: (h, w) grey or (h, w, 3)."""
    rows = -(-len(images) // columns)
    height, width, channels = images.shape[1:]
    sheet = np.zeros((rows * columns, height, width, channels), images.dtype)
    sheet[: len(images)] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return _shown(sheet.reshape(rows * height, columns * width, channels))


_GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}


def _shown(image: np.ndarray) -> np.ndarray:
    """An image as imshow takes it: RGB as it is, four channels over white, any other number of them as their mean."""
    if image.shape[-1] == 4:
        alpha = image[..., 3:]
        image = image[..., :3] * alpha + (1 - alpha)
    return image if image.shape[-1] == 3 else image.mean(-1)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, int(LETTERS_AN_INCH * width)))
    return figure


def _row(figure: Figure, count: int) -> Sequence[Axes]:
    row: Sequence[Axes] = figure.subplots(1, count, squeeze=False)[0]
    return row


def _image_rows(
    figure: Figure,
    names: Sequence[str],
    rows: Sequence[np.ndarray | Sequence[np.ndarray]],
    captions: Sequence[str] = (),
) -> np.ndarray:
    """A table of images: a row per name, captions under the last row."""
    table = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for name, row, images in zip(names, table, rows):
        for axes, image in zip(row, images):
            axes.imshow(_shown(image), interpolation="nearest", **_GREY)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, caption in zip(table[-1], captions):
        axes.set_xlabel(caption, fontsize="small")
    return table


def _class_style(label: int) -> dict[str, Any]:
    if label < 0:
        return {"color": "0.4", "marker": "o"}
    row, column = divmod(int(label), len(CLASS_COLOURS))  # no two of the first 90 classes look the same
    return {"color": CLASS_COLOURS[column], "marker": CLASS_MARKERS[(row + column) % len(CLASS_MARKERS)]}


def _name_classes(axes: Axes, named: Sequence[tuple[float, float, str, Any]]) -> None:
    """Each class's name at its median, moved up or down until none covers another; a line leads from where it was."""
    halo = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85}
    texts = [
        axes.text(x, y, name, ha="center", va="center", fontsize="small", bbox={**halo, "edgecolor": colour}, zorder=5)
        for x, y, name, colour in named
    ]
    boxes = [text.get_window_extent().padded(PADDING) for text in texts]
    places = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes]).reshape(-1, 2)
    halves = np.array([[box.width / 2, box.height / 2] for box in boxes]).reshape(-1, 2)
    for _ in range(MOST_MOVES):
        moved = False
        for i in range(len(places)):
            for j in range(i):
                overlap = halves[i] + halves[j] - np.abs(places[i] - places[j])
                if (overlap > 0).all():
                    up = 1.0 if places[i, 1] >= places[j, 1] else -1.0
                    places[i, 1] += up * overlap[1] / 2
                    places[j, 1] -= up * overlap[1] / 2
                    moved = True
        if not moved:
            break
    back = axes.transData.inverted()
    for text, (x, y, _, colour), place in zip(texts, named, places):
        spot = back.transform(place)
        if not np.allclose(spot, (x, y)):
            text.set_position((float(spot[0]), float(spot[1])))
            axes.plot([x, spot[0]], [y, spot[1]], color=colour, linewidth=0.8, zorder=4)
