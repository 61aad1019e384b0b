"""Every metric against a known answer, and blind to exactly what it says."""

import numpy as np
import pytest

from vae_common.figures.planes import data_window, grid_points, plane_of, prior_window, procrustes_align
from vae_common.metrics import descriptors, similarity

pytestmark = pytest.mark.quick

DRAW = np.random.default_rng(0)
BASE = DRAW.normal(size=(300, 3)) * (1.0, 2.0, 0.5)
ROTATION = np.linalg.qr(DRAW.normal(size=(3, 3)))[0]
CHANGES = {
    "rotation": BASE @ ROTATION,
    "sign": BASE * (1, -1, -1),
    "scale": BASE * 7,
    "shift": BASE + 5,
    "permutation": BASE[:, [2, 0, 1]],
}
UNRELATED = DRAW.normal(size=(300, 3))
EVERYTHING = tuple(CHANGES)
METRICS = {
    "linear_cka": (similarity.linear_cka, 1, EVERYTHING),
    "procrustes_disparity": (similarity.procrustes_disparity, 0, EVERYTHING),
    "rsa": (similarity.rsa, 1, EVERYTHING),
    "mutual_neighbours": (similarity.mutual_neighbours, 1, EVERYTHING),
    "axis_correlation": (similarity.axis_correlation, 1, ("sign", "scale", "shift", "permutation")),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("change", CHANGES)
def test_blind_to(name, change):
    metric, equal, blind_to = METRICS[name]
    value = metric(BASE, CHANGES[change])
    assert (abs(value - equal) < 1e-9) == (change in blind_to)


@pytest.mark.parametrize("name", METRICS)
def test_sees_another_structure(name):
    metric, equal, _ = METRICS[name]
    assert abs(metric(BASE, UNRELATED) - equal) > 0.7
    assert 0 < abs(metric(BASE, BASE + 0.3 * UNRELATED) - equal) < 0.7


def test_cka_of_unrelated_sets_is_zero_on_average():
    """Unbiased: the common estimate would be about 0.5 here."""
    values = [similarity.linear_cka(*DRAW.normal(size=(2, 30, 20))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5


def test_procrustes_align_gives_back_the_first():
    moved = 3 * BASE @ ROTATION + 2
    np.testing.assert_allclose(procrustes_align(BASE, moved), BASE, atol=1e-12)
    collapsed = procrustes_align(BASE, np.full_like(BASE, 0.5))
    np.testing.assert_allclose(collapsed, np.tile(BASE.mean(0), (300, 1)), atol=1e-12)


def test_mutual_neighbours_of_a_known_case():
    line = np.arange(30.0)[:, None]
    swapped = line.copy()
    swapped[[0, 29]] = swapped[[29, 0]]
    assert similarity.mutual_neighbours(line, line, k=2) == 1
    assert 0.8 < similarity.mutual_neighbours(line, swapped, k=2) < 0.97


LABELS = np.repeat(np.arange(3), 100)
APART = DRAW.normal(size=(300, 2)) + 20 * np.stack([LABELS, LABELS % 2], 1)
NOISE = DRAW.normal(size=(300, 2))
SQUARE = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
NARROW = np.log(0.5) + np.zeros((10, 2))
KNOWN = {
    "trustworthiness": [
        (descriptors.trustworthiness(APART, APART), pytest.approx(1)),
        (descriptors.trustworthiness(APART, NOISE) < 0.7, True),
    ],
    "knn_accuracy": [
        (descriptors.knn_accuracy(APART, LABELS), 1),
        (descriptors.knn_accuracy(NOISE, LABELS) < 0.5, True),
    ],
    "silhouette": [
        (descriptors.silhouette(APART, LABELS) > 0.8, True),
        (descriptors.silhouette(APART[:, :1] * 0 + LABELS[:, None], LABELS), pytest.approx(1)),
    ],
    "active_units": [(descriptors.active_units(np.concatenate([APART, 0.01 * NOISE, 0.01 * NOISE], axis=1)), 2)],
    "aggregate_posterior_kl_nats": [
        (descriptors.aggregate_posterior_kl(np.zeros((10, 2)), NARROW), pytest.approx(2 * (0.125 - 0.5 + np.log(2)))),
        (descriptors.aggregate_posterior_kl(np.ones((10, 2)), 0 * NARROW), pytest.approx(1)),
    ],
    "effective_dimensions": [
        (descriptors.effective_dimensions(SQUARE), pytest.approx(2)),
        (descriptors.effective_dimensions(SQUARE * (1, 0, 0)), pytest.approx(1)),
        (descriptors.effective_dimensions(SQUARE * (2, 1, 1)), pytest.approx(25 / 17)),
        (descriptors.effective_dimensions(SQUARE + 5), pytest.approx(2)),
    ],
}
"""What each metric of one set gives where its value is known."""


@pytest.mark.parametrize("name", descriptors.DESCRIPTORS)
def test_descriptors(name):
    """A metric without a known case fails here: it is not known to be right."""
    for found, expected in KNOWN[name]:
        assert found == expected


WRONG = {
    "not squared": lambda x: np.trace(np.cov(x.T, bias=True)) / np.trace(np.cov(x.T, bias=True)),
    "of deviations": lambda x: x.std(0).sum() ** 2 / (x.std(0) ** 2).sum(),
    "not centred": lambda x: np.trace(x.T @ x) ** 2 / ((x.T @ x) ** 2).sum(),
    "of the largest": lambda x: x.var(0).sum() / x.var(0).max(),
    "upside down": lambda x: (np.cov(x.T, bias=True) ** 2).sum() / np.trace(np.cov(x.T, bias=True)) ** 2,
    "dimensions that vary": lambda x: (x.var(0) > 0).sum(),
    "entropy": lambda x: np.exp(-sum(v * np.log(v) for v in x.var(0) / x.var(0).sum() if v)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_known_cases_see_a_wrong_formula(wrong):
    """The participation ratio, seven times wrong: no known case would be right by chance in all."""
    cases = (SQUARE, SQUARE * (1, 0, 0), SQUARE * (2, 1, 1), SQUARE + 5)
    expected = [value for _, value in KNOWN["effective_dimensions"]]
    assert any(float(WRONG[wrong](case)) != value for case, value in zip(cases, expected))


def test_every_metric_has_a_known_case():
    assert set(METRICS) | set(KNOWN) == set(descriptors.METRICS)


def test_aggregate_posterior_kl_of_a_prior_that_is_met():
    mean = DRAW.normal(size=(200_000, 2)) * 0.6
    log_std = np.full_like(mean, np.log(0.8))
    assert descriptors.aggregate_posterior_kl(mean, log_std) == pytest.approx(0, abs=1e-3)


def test_describe_leaves_out_what_is_not_there():
    images = DRAW.random((300, 4, 4, 1))
    unlabelled = descriptors.describe(BASE, None, np.full(300, -1), images)
    assert set(unlabelled) == {"trustworthiness", "effective_dimensions"}
    described = descriptors.describe(BASE, BASE * 0, np.arange(300) % 3, images)
    assert set(described) == set(descriptors.DESCRIPTORS)
    other = descriptors.describe(BASE, BASE * 0, np.arange(300) % 3, images, standard_prior=False)
    assert set(described) - set(other) == {"aggregate_posterior_kl_nats"}
    spatial = descriptors.describe(BASE.reshape(300, 1, 1, 3), None, np.full(300, -1), images)
    assert spatial == unlabelled


@pytest.mark.parametrize("rows", [1, 3, 5, 12, 21])
@pytest.mark.parametrize("latent_dim", [1, 2, 6])
def test_small_and_collapsed_sets_give_no_error(rows, latent_dim):
    space, images = DRAW.normal(size=(rows, latent_dim)), DRAW.random((rows, 2, 2, 1))
    labels = np.arange(rows) % 2
    compared = similarity.similarities(space, space)
    assert (compared["linear_cka"] is None) == (rows < 4)
    assert all(value is None for value in similarity.similarities(space, 0 * space).values())
    descriptors.describe(space, space, labels, images)
    descriptors.describe(0 * space, space, labels, images)
    assert np.isfinite(plane_of(space).project(space)).all()


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_plane(latent_dim):
    """Points on the plane survive there and back; beyond two dimensions the labels say so."""
    space = DRAW.normal(size=(100, latent_dim)) * np.arange(1, latent_dim + 1)
    plane = plane_of(space)
    assert ("principal component" in plane.labels[0]) == (latent_dim > 2)
    points = plane.project(space)
    assert points.shape == (100, 2)
    np.testing.assert_allclose(plane.project(plane.lift(points)), points, atol=1e-12)
    if latent_dim == 5:
        assert points[:, 0].var() >= points[:, 1].var() > 0.8 * 16
    else:
        np.testing.assert_allclose(points[:, :latent_dim], space)


def test_windows_and_grid():
    np.testing.assert_allclose(prior_window(), [-1.96, 1.96, -1.96, 1.96], atol=1e-3)
    x0, x1, _, y1 = data_window(np.stack([np.arange(1001.0), np.zeros(1001)], 1))
    assert (x0, x1, y1) == (25, 975, 0)
    points = grid_points((0, 2, 10, 14), 2)
    np.testing.assert_allclose(points, [[0.5, 13], [1.5, 13], [0.5, 11], [1.5, 11]])
