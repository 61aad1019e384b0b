"""The figures of finished models: which windows, which projections, which panels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.configs import small_config
from tests.conftest import HALVES, rendered
from vae_common.config import NetworkConfig
from vae_common.config.registry import size
from vae_common.figures import of_models, plotting
from vae_common.figures.options import FigureOptions
from vae_common.figures.planes import data_window

NAMES = ("JAX", "PyTorch")


def drawn(monkeypatch, small, folder, model="vae", latent_dim=2, options=FigureOptions(), halves=HALVES):
    """What `draw` hands to the disk: figure name -> matplotlib figure."""
    config = replace(small_config(model), network=NetworkConfig(hidden=(8,), latent_dim=latent_dim))
    kept: dict[str, Figure] = {}

    def keep(figure, path):
        kept[path.stem] = figure
        return path

    monkeypatch.setattr(plotting, "save", keep)
    named = dict(zip(NAMES, halves.values()))
    rendered(named, config, small, folder, options)
    return kept, {name: half.encode(half.create_model(config), small.test.images).mean for name, half in named.items()}


def extents(figure):
    return [axes.images[0].get_extent() for axes in figure.axes if axes.images]


def test_a_vae_is_decoded_over_its_prior(monkeypatch, small, tmp_path):
    kept, _ = drawn(monkeypatch, small, tmp_path)
    assert set(kept) == {
        "loss_curves", "latent_scatter", "latent_scatter_aligned", "decoded_grid", "reconstructions", "interpolation",
        "prior_samples", "difference",
    }  # fmt: skip
    for extent in extents(kept["decoded_grid"]):
        np.testing.assert_allclose(extent, [-1.96, 1.96, -1.96, 1.96], atol=1e-3)


def test_an_ae_is_decoded_over_its_data_and_has_no_prior(monkeypatch, small, tmp_path):
    kept, means = drawn(monkeypatch, small, tmp_path, "ae")
    assert "prior_samples" not in kept
    for extent, mean in zip(extents(kept["decoded_grid"]), means.values()):
        np.testing.assert_allclose(extent, data_window(mean))
    scatter = [axes.collections for axes in kept["latent_scatter"].axes]
    points = np.concatenate([c.get_offsets() for c in scatter[0]])
    assert sorted(map(tuple, points)) == sorted(map(tuple, means["JAX"]))


def test_the_tutorials_window_and_chosen_images(monkeypatch, small, tmp_path):
    options = FigureOptions(window=(-5, 10, -10, 5), interpolate=(7, 3), steps=5)
    kept, _ = drawn(monkeypatch, small, tmp_path, options=options)
    assert [tuple(extent) for extent in extents(kept["decoded_grid"])] == [(-5, 10, -10, 5)] * 2
    strip = [axes.images[0].get_array() for axes in kept["interpolation"].axes[:7]]
    np.testing.assert_allclose(strip[0], small.test.images[7, ..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(strip[-1], small.test.images[3, ..., 0] / 255, atol=1e-6)
    assert "test images 7 and 3" in kept["interpolation"].get_suptitle()


@pytest.mark.parametrize("latent_dim", [1, 5])
def test_a_projection_is_named(monkeypatch, small, tmp_path, latent_dim):
    kept, _ = drawn(monkeypatch, small, tmp_path, latent_dim=latent_dim)
    for name in ("latent_scatter", "decoded_grid"):
        label = kept[name].axes[0].get_xlabel()
        assert ("principal component 1 of 5" in label) == (latent_dim == 5)


def test_one_half_alone(monkeypatch, small, tmp_path):
    kept, _ = drawn(monkeypatch, small, tmp_path, halves={"jax": HALVES["jax"]})
    assert "difference" not in kept
    assert len([axes for axes in kept["decoded_grid"].axes if axes.images]) == 1


def test_many_classes_stay_on_the_figure():
    rng = np.random.default_rng(0)
    cloud = plotting.Cloud(rng.normal(size=(620, 2)), ("x", "y"))
    figure = plotting.latent_scatter({"JAX": cloud}, np.arange(620) % 62, [f"c{i}" for i in range(62)], "t")
    figure.canvas.draw()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert box.x1 <= page.x1
    assert box.y0 >= page.y0
    assert box.y1 <= page.y1
    assert not figure.axes[0].texts


@pytest.mark.parametrize(("model", "order"), [("ladder_vae", [0, 1]), ("two_layer_vae", [1, 0])])
def test_layers_are_drawn_anew_from_the_top_on(model, order):
    """Of each row, what stands above its layer is the first draw's, and the rest another draw for each image; in a
    traversal one number alone moves."""
    config, seen = small_config(model), []

    def generate(model, noise, labels):
        seen.append(noise)
        return np.abs(noise[:, None, :, None]).clip(0, 1)

    half = SimpleNamespace(generate=generate)
    trained = {"JAX": of_models.TrainedModel(half, None, [], np.zeros((3, 2)))}
    subject = of_models.Subject(trained, config, SimpleNamespace(name="small"), None, FigureOptions())
    figure = of_models.samples_by_layer(subject)
    assert len(figure.axes) == len(order) * 10
    sizes = [size([shape]) for shape in config.layer_shapes]
    starts = np.cumsum([0, *sizes])
    layers = [np.arange(starts[place], starts[place + 1]) for place in order]
    assert len(seen) == len(order)
    for place, noise in enumerate(seen):
        shared = {tuple(row) for row in noise[:, np.concatenate([np.empty(0, int), *layers[:place]])]}
        assert len(shared) == 1
        assert len({tuple(row) for row in noise[:, np.concatenate(layers[place:])]}) == 10
    seen.clear()
    assert len(of_models.traversals(subject).axes) == len(order) * 10
    for layer, noise in zip(layers, seen[2::3]):
        (moved,) = np.flatnonzero(np.ptp(noise, 0))
        assert moved in layer
        np.testing.assert_allclose(noise[:, moved], np.linspace(-2.5, 2.5, 10))


@pytest.mark.parametrize("model", ["kl_autoencoder", "vq_vae"])
def test_latents_on_a_grid_are_drawn_as_maps(monkeypatch, small, tmp_path, model):
    """Channel by channel; what the places of an image cost is its exact KL. No plane of such latents is decoded."""
    network = {
        "kl_autoencoder": NetworkConfig(block_channels=(4, 8), norm_groups=2, latent_channels=5),
        "vq_vae": NetworkConfig(code_layout="grid", channels=(4, 4), codes=8, code_dim=3),
    }[model]
    config, kept = replace(small_config(model), network=network), {}
    monkeypatch.setattr(plotting, "save", lambda figure, path: kept.setdefault(path.stem, figure))
    rendered(dict(zip(NAMES, HALVES.values())), config, small, tmp_path, FigureOptions())
    assert "decoded_grid" not in kept
    figure, half = kept["latent_maps"], HALVES["torch"]
    panels = [axes.images[-1].get_array() for axes in figure.axes if axes.get_label() != "<colorbar>"]
    rows = [panels[first : first + 10] for first in range(0, len(panels), 10)]
    trained, some = half.create_model(config), np.unique(np.linspace(0, len(small.test) - 1, 10).astype(int))
    mean = half.encode(trained, small.test.images[some]).mean
    drawn_as = rows[6:] if model == "kl_autoencoder" else rows[4:]  # the images, JAX's rows, then these
    assert len(drawn_as) == (5 if model == "kl_autoencoder" else 3)
    for channel, row in enumerate(drawn_as[: min(4, mean.shape[-1])]):
        np.testing.assert_allclose(row, mean[..., channel], rtol=1e-6)
    if model == "kl_autoencoder":
        assert "the first 4 of 5 channels" in figure.get_suptitle()
        costs = half.evaluate(trained, small.test.images[some], config).kl
        np.testing.assert_allclose([place.sum() for place in drawn_as[4]], costs, rtol=1e-5)


def test_of_one_layer_there_are_no_rows_of_layers(monkeypatch, small, tmp_path):
    assert not {"samples_by_layer", "traversals"} & set(drawn(monkeypatch, small, tmp_path)[0])
