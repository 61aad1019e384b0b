"""The figures' pixels hold what the data says, at the place where the axes say it is."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from vae_common.figures import plotting
from vae_common.figures.planes import grid_points

pytestmark = pytest.mark.quick

DRAW = np.random.default_rng(0)


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def colour_at(figure, axes, x, y, shot=None) -> np.ndarray:
    """The rendered colour at a point in the axes' data coordinates."""
    shot = pixels(figure) if shot is None else shot
    column, row = axes.transData.transform((x, y))
    return shot[shot.shape[0] - 1 - round(row), round(column)]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title() or axes.images]


def test_tile_places_images_row_by_row():
    images = np.arange(6.0).reshape(6, 1, 1, 1) * np.ones((6, 2, 3, 1))
    sheet = plotting.tile(images, 3)
    assert sheet.shape == (4, 9)
    np.testing.assert_array_equal(sheet[::2, ::3], [[0, 1, 2], [3, 4, 5]])
    colour = DRAW.random((5, 2, 2, 3))
    assert plotting.tile(colour, 2).shape == (6, 4, 3)
    np.testing.assert_array_equal(plotting.tile(colour, 2)[:2, 2:4], colour[1])


def test_decoded_grid_shows_each_latent_at_its_place():
    """A decoder that paints x as its grey value, over a window that is not square."""
    window, side = (-3.0, 5.0, 10.0, 12.0), 8
    points = grid_points(window, side)
    grey = (points[:, 0] - window[0]) / 8 * ((points[:, 1] > 11) * 0.5 + 0.5)  # darker below the middle
    images = grey[:, None, None, None] * np.ones((1, 4, 4, 1))
    grids = {name: plotting.Grid(images, window, ("x", "y")) for name in ("JAX", "PyTorch")}
    figure = plotting.decoded_grid(grids, "title")
    shot = pixels(figure)
    for axes in panels(figure):
        for (x, y), value in zip(points, grey):
            assert colour_at(figure, axes, x, y, shot) == pytest.approx(value, abs=0.02)
    assert [axes.get_title() for axes in panels(figure)] == ["JAX", "PyTorch"]
    assert axes.get_xlabel() == "x"


def test_scatter_paints_each_class_in_its_own_colour():
    classes = np.arange(300) % 3
    centres = np.array([[-4.0, 0.0], [0.0, 4.0], [5.0, -3.0]])
    points = centres[classes] + 0.02 * DRAW.normal(size=(300, 2))
    points[:3] = centres + [[1, 1], [1, 1], [-1, 1]]  # away from the class's name
    clouds = {"JAX": plotting.Cloud(points, ("x", "y"))}
    figure = plotting.latent_scatter(clouds, classes, ["no", "yes", "maybe"], "title")
    axes = panels(figure)[0]
    for label in range(3):
        seen = colour_at(figure, axes, *points[label])
        faded = [0.6 * np.array(to_rgb(plotting.CLASS_COLOURS[k])) + 0.4 for k in range(3)]
        distances = [np.abs(seen - colour).sum() for colour in faded]
        assert np.argmin(distances) == label
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["no", "yes", "maybe"]


def test_scatter_of_one_dimension_and_without_labels():
    cloud = plotting.Cloud(np.stack([DRAW.normal(size=50), np.zeros(50)], 1), ("z", ""))
    figure = plotting.latent_scatter({"JAX": cloud}, np.arange(50) % 2, ["a", "b"], "t")
    assert panels(figure)[0].get_ylabel() == "class"
    assert not plotting.latent_scatter({"JAX": cloud}, np.full(50, -1), [], "t").legends


def test_class_styles_differ():
    styles = [tuple(plotting._class_style(label).values()) for label in range(62)]
    assert len(set(styles)) == 62


def test_rows_of_images():
    originals = DRAW.random((4, 6, 6, 1))
    decoded = {"JAX": originals / 2, "PyTorch": originals / 4}
    figure = plotting.reconstructions(originals, decoded, "title")
    shown = np.array([axes.images[0].get_array() for axes in figure.axes]).reshape(3, 4, 6, 6)
    np.testing.assert_allclose(shown, np.stack([originals, originals / 2, originals / 4])[..., 0])
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert rows == ["original", "JAX", "PyTorch"]
    axes = figure.axes[5]  # JAX, second image
    assert colour_at(figure, axes, 2, 3) == pytest.approx(originals[1, 3, 2, 0] / 2, abs=0.02)


def test_interpolation_has_its_ends_beside_it():
    ends = np.stack([np.zeros((3, 3, 1)), np.ones((3, 3, 1))])
    strip = np.linspace(0.2, 0.8, 5)[:, None, None, None] * np.ones((1, 3, 3, 1))
    figure = plotting.interpolation({"JAX": strip}, ends, "title")
    middles = [colour_at(figure, axes, 1, 1)[0] for axes in figure.axes]
    np.testing.assert_allclose(middles, [0, 0.2, 0.35, 0.5, 0.65, 0.8, 1], atol=0.02)
    assert [axes.get_xlabel() for axes in figure.axes] == ["image", "0", "0.25", "0.5", "0.75", "1", "image"]


def history(offset):
    return [
        {
            "epoch": e,
            "train": {"total_nats": 100 / e + offset, "reconstruction_nats": 90 / e, "kl_nats": 10 / e + offset},
            "test": {"total_nats": 110 / e + offset, "reconstruction_nats": 95 / e, "kl_nats": 15 / e},
        }
        for e in (1, 2, 3)
    ]


def test_loss_curves_draw_the_histories():
    figure = plotting.loss_curves(
        {"JAX": [history(0)], "PyTorch": [history(30)]}, {"reconstruction_nats": "nats", "kl_nats": "nats"}, "title"
    )
    assert [axes.get_title() for axes in figure.axes] == ["total", "reconstruction", "KL"]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"JAX, train", "JAX, test", "PyTorch, train", "PyTorch, test"}
    np.testing.assert_allclose(lines["PyTorch, test"].get_xydata(), [[1, 140], [2, 85], [3, 110 / 3 + 30]])
    style = plotting.HALF_STYLES[1]["color"]
    on_line = colour_at(figure, figure.axes[2], 2, 35)  # PyTorch's train KL at epoch 2
    assert np.abs(on_line - to_rgb(style)).max() < 0.25


def test_loss_curves_of_an_autoencoder_have_no_kl():
    records = history(0)
    for record in records:
        for split in ("train", "test"):
            record[split]["kl_nats"] = 0.0
    figure = plotting.loss_curves({"JAX": [records]}, {"reconstruction_nats": "nats", "kl_nats": "nats"}, "title")
    assert [axes.get_title() for axes in figure.axes] == ["total"]


def test_difference_is_signed_and_scaled_to_the_data():
    a = np.full((2, 5, 5, 1), 0.5)
    b = a.copy()
    b[0, 1, 2], b[1, 3, 4] = 0.51, 0.49
    figure = plotting.difference({"JAX": a, "PyTorch": b}, "title")
    axes = [axes for axes in figure.axes if axes.images]
    red, blue = colour_at(figure, axes[4], 2, 1), colour_at(figure, axes[5], 4, 3)
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert colour_at(figure, axes[4], 0, 0) == pytest.approx(0.97, abs=0.03)


def test_prior_samples_and_file_size(tmp_path):
    samples = DRAW.random((100, 28, 28, 1))
    figure = plotting.prior_samples({"JAX": samples, "PyTorch": 1 - samples}, "title")
    path = plotting.save(figure, tmp_path / "a.png")
    assert path.stat().st_size < 600_000
    assert Image.open(io.BytesIO(path.read_bytes())).size[0] > 800
    shown = panels(figure)[1].images[0].get_array()
    np.testing.assert_allclose(shown, 1 - plotting.tile(samples, 10))
