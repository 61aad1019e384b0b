"""What cannot be meant is refused in one line, and what can be is taken: no traceback."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, npz, rendered
from tests.conftest import SMALL_IMAGES as IMAGES
from vae_common.comparison import compare
from vae_common.comparison.options import ClaimOptions
from vae_common.comparison.training import group_runs
from vae_common.config import Config, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.data import datasets
from vae_common.data.seen import binarize
from vae_common.errors import InputError, one_line
from vae_common.figures import plotting
from vae_common.figures.options import FigureOptions
from vae_common.runs import trainer
from vae_common.runs.epoch_records import TERMS


@pytest.mark.parametrize("value", [2**31, 2**31 + 1, 2**63, 10**30, -1])
@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (OptimizerConfig, "warmup_steps"),
        (OptimizerConfig, "decay_steps"),
        (LossConfig, "kl_warmup"),
        (LossConfig, "samples"),
        (TrainingConfig, "epochs"),
        (TrainingConfig, "batch_size"),
        (NetworkConfig, "latent_dim"),
        (NetworkConfig, "classes"),
    ],
)
def test_counts_have_an_end(cls, name, value):
    with pytest.raises(InputError, match=f"{name}: received {value}, expected an integer from"):
        cls(**{name: value})


@pytest.mark.parametrize("value", [1e300, 1e39, float("inf"), float("nan"), 10**400, -1.0, "1", None, True, [1.0]])
@pytest.mark.parametrize(
    ("cls", "name"), [(LossConfig, "free_bits"), (OptimizerConfig, "second_moment_start"), (LossConfig, "beta")]
)
def test_numbers_have_an_end(cls, name, value):
    with pytest.raises(InputError, match=f"{name}: received"):
        cls(**{name: value})


def test_halves_agree_on_the_largest_counts(half, small):
    most = 2**31 - 1
    optimizer = OptimizerConfig(schedule="cosine", decay_steps=most, warmup_steps=most)
    config = small_config(optimizer=optimizer, loss=LossConfig(kl_warmup=most))
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1))
    state = half.fit(half.create_state(config), small)
    assert half.lost_part(state) is None


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ({"hidden": [8, 4]}, (8, 4)),
        ({"hidden": (np.int64(8),)}, (8,)),
        ({"hidden": [np.int32(8)]}, (8,)),
        ({"hidden": np.array([8])}, None),
        ({"hidden": {8: 4}}, None),
        ({"hidden": 8}, None),
        ({"hidden": "8"}, None),
        ({"hidden": [8.0]}, None),
    ],
)
def test_config_fields_of_other_types(value, taken):
    if taken is None:
        with pytest.raises(InputError, match="hidden: received"):
            NetworkConfig(**value)
    else:
        assert NetworkConfig(**value).hidden == taken
        assert Config.from_json(Config(network=NetworkConfig(**value)).to_json()).network.hidden == taken


@pytest.mark.parametrize("value", [None, 3, "x", {}, LossConfig()])
def test_a_part_that_is_none(value):
    with pytest.raises(InputError, match="network: received"):
        Config(network=value)


def test_numpys_scalars_are_pythons():
    config = Config(seed=np.uint64(7), loss=LossConfig(beta=np.float32(0.5)), model=np.str_("vae"))
    assert (type(config.seed), type(config.loss.beta), type(config.model)) == (int, float, str)
    assert hash(config) == hash(Config(seed=7, loss=LossConfig(beta=0.5), model="vae"))
    assert json.dumps(config.to_json())


HOSTILE = [
    np.zeros((2, 8, 6, 1), complex),
    [[1, 2], [3]],
    "images",
    None,
    object(),
    {"a": 1},
    np.zeros((2, 8, 6, 1), object),
    np.full((2, 48), np.nan),
    np.full((2, 48), 2.0),
    np.zeros((2, 47)),
    np.zeros(47),
    np.float32(3),
    np.zeros((2, 8, 6, 1), "datetime64[s]"),
    np.ones((2, 48), np.int64),
]


@pytest.mark.parametrize("given", HOSTILE, ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}")
def test_arrays_that_are_none(half, given):
    config = small_config(image_shape=(8, 6, 1))
    model, state = half.create_model(config), half.create_state(config)
    noise = np.zeros((2, 3))
    for call in (
        lambda: half.encode(model, given),
        lambda: half.reconstruct(model, given),
        lambda: half.evaluate(model, given, config),
        lambda: half.log_marginal(model, given, config, 5),
        lambda: half.forward(model, given, noise),
        lambda: half.interpolate(model, given, given),
        lambda: half.train_step(state, given, noise),
        lambda: half.gradients(state, given, noise),
        lambda: half.place_images(given, config),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "latents", [np.zeros((2, 3), complex), [[1, 2, 3], [4]], "x", None, np.zeros((2, 2)), np.full((2, 3), np.inf), 3.0]
)
def test_latents_that_are_none(half, latents):
    with pytest.raises(InputError, match="latents: received"):
        half.decode(half.create_model(small_config()), latents)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda h, m: h.sample(m, 3, seed=2**200), "seed: received"),
        (lambda h, m: h.sample(m, 3, seed=-1), "seed: received"),
        (lambda h, m: h.sample(m, 3, seed=1.5), "seed: received"),
        (lambda h, m: h.sample(m, -1), "count: received"),
        (lambda h, m: h.sample(m, 2.5), "count: received"),
        (lambda h, m: h.sample(m, 2, labels=[0, 1]), "labels: received some, expected none"),
        (lambda h, m: h.interpolate(m, IMAGES[0], IMAGES[1], steps=-1), "steps: received"),
        (lambda h, m: h.interpolate(m, IMAGES[0], IMAGES[1], labels=(0, 1)), "labels: received some"),
        (lambda h, m: h.log_marginal(m, IMAGES > 127, small_config(image_shape=(8, 6, 1)), 5), "a likelihood"),
    ],
)
def test_numbers_that_are_none(half, call, said):
    with pytest.raises(InputError, match=said):
        call(half, half.create_model(small_config(image_shape=(8, 6, 1))))


def test_a_tensor_that_requires_a_gradient(half):
    model = half.create_model(small_config(image_shape=(8, 6, 1)))
    images = torch.tensor(IMAGES / 255, requires_grad=True)
    np.testing.assert_array_equal(half.encode(model, images).mean, half.encode(model, IMAGES / 255).mean)
    latents = torch.zeros((2, 3), requires_grad=True)
    np.testing.assert_array_equal(half.decode(model, latents), half.decode(model, np.zeros((2, 3))))
    np.testing.assert_array_equal(half.encode(model, jax.numpy.asarray(IMAGES)).mean, half.encode(model, IMAGES).mean)


BATCH = np.random.default_rng(0).random((4, 28, 28, 1))
NOISE = np.random.default_rng(1).standard_normal((4, 3))


@pytest.mark.parametrize(
    ("images", "noise", "labels", "said"),
    [
        ((BATCH * 255).astype(np.uint8), NOISE, None, "images: received 'uint8'"),
        (BATCH * 255, NOISE, None, "expected \\[0, 1\\]"),
        (-BATCH, NOISE, None, "expected \\[0, 1\\]"),
        (np.full_like(BATCH, np.nan), NOISE, None, "expected \\[0, 1\\]"),
        (BATCH[..., 0], NOISE, None, "images: received \\(4, 28, 28\\)"),
        (BATCH.reshape(4, -1), NOISE, None, "images: received \\(4, 784\\)"),
        (BATCH[:0], NOISE[:0], None, "at least one"),
        (BATCH, NOISE[:1], None, "noise: received \\(1, 3\\)"),
        (BATCH, NOISE[:, :1], None, "noise: received \\(4, 1\\)"),
        (BATCH, NOISE[0], None, "noise: received \\(3,\\)"),
        (BATCH, NOISE.astype(int), None, "noise: received 'int64'"),
        (BATCH, NOISE > 0, None, "noise: received 'bool'"),
        (BATCH, NOISE * np.nan, None, "noise: received NaN"),
        (BATCH, NOISE, [0, 1, 2, 3], "labels: received some, expected none"),
        (BATCH.tolist(), NOISE, None, "images: received list"),
    ],
)
def test_a_step_takes_batches_only(half, images, noise, labels, said):
    state = half.create_state(small_config())
    for function in (half.train_step, half.gradients):
        with pytest.raises(InputError, match=said):
            function(state, images, noise, labels)
    with pytest.raises(InputError, match="expected a single one"):
        half.train_step(half.stack_states([state]), BATCH, NOISE)


@pytest.mark.parametrize("labels", [None, [0, 1, 2], [0, 1, 2, 5], [0, 1, 2, -1], [0.0, 1, 2, 3], [[0, 1, 2, 3]]])
def test_labels_of_a_step(half, labels):
    config = small_config(network=NetworkConfig(hidden=(8,), latent_dim=3, classes=5))
    given = None if labels is None else np.array(labels)
    state, model = half.create_state(config), half.create_model(config)
    for call in (
        lambda: half.train_step(state, BATCH, NOISE, given),
        lambda: half.encode(model, BATCH, given),
        lambda: half.sample(model, 4, labels=given) if given is not None else half.decode(model, NOISE),
        lambda: (
            half.place_labels(given, config) if given is not None and len(given) == 4 else half.decode(model, NOISE)
        ),
        lambda: half.interpolate(model, BATCH[0], BATCH[1], labels=given),
    ):
        with pytest.raises(InputError, match="labels: received"):
            call()
    half.train_step(state, BATCH, NOISE, np.arange(4))


@pytest.mark.parametrize("labels", [(0, 1, 2), (0,), [], 3, (0, 9), ("a", "b")])
def test_an_interpolation_has_two_labels(half, labels):
    model = half.create_model(small_config(network=NetworkConfig(hidden=(8,), latent_dim=3, classes=5)))
    with pytest.raises(InputError, match="labels: received"):
        half.interpolate(model, BATCH[0], BATCH[1], labels=labels)
    assert half.interpolate(model, BATCH[0], BATCH[1], 3, (0, 1)).shape == (3, 28, 28, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i, d: (i.astype(np.float64), d), "images: received"),
        (lambda i, d: (i[..., 0], d), "images: received"),
        (lambda i, d: (i, d._replace(order=d.order[:, :3])), "draws.order: received"),
        (lambda i, d: (i, d._replace(order=d.order[:0])), "draws.order: received"),
        (lambda i, d: (i, d._replace(noise=d.noise[:, :1])), "draws.noise: received"),
        (lambda i, d: (i, d._replace(noise=d.noise[:1])), "draws.noise: received"),
        (lambda i, d: (i, d._replace(thresholds=d.noise)), "draws.thresholds: received"),
    ],
)
def test_an_epoch_takes_its_own_draws_only(half, small, change, said):
    config = small_config()
    images, draws = small.train.images, None
    state = half.create_state(config)
    draws = half.epoch_draws(config, 0, len(images))
    plain = type(draws)._make(None if d is None else half.to_numpy(d) for d in draws)
    for function in (half.train_epoch, half.compile_epoch):
        with pytest.raises(InputError, match=said):
            function(state, *change(images, plain))


@pytest.mark.parametrize("size", [-1, 2.5, "10", None, 2**40, True])
def test_a_split_of_no_size(small, size):
    with pytest.raises(InputError, match="validation_size: received"):
        small.hold_out(size)


SPLITS = [("typo", "train"), ("dynamic", "train"), (None, "train"), (["none"], "test")]
SPLITS += [("static", "tset"), ("none", ""), ("static", None)]


@pytest.mark.parametrize(("mode", "split"), SPLITS)
def test_a_binarization_that_is_none(mode, split):
    with pytest.raises(InputError, match=r"(binarization|split): received"):
        binarize(IMAGES, mode, split)
    with pytest.raises(InputError):
        binarize(IMAGES / 255, "static", "test")


@pytest.mark.parametrize("name", [Path("a.npz"), "a.npz", "./a.npz"])
def test_paths_and_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    npz(tmp_path)
    assert len(datasets.load(name, data_dir=Path("data"), manual_dir=tmp_path).train) == 24


@pytest.mark.parametrize("value", [None, 3, b"a.npz", ["a.npz"], object(), "a\0b", 1.5])
def test_names_that_are_none(tmp_path, value):
    for call in (
        lambda: datasets.load(value),
        lambda: datasets.load("mnist", data_dir=value),
        lambda: datasets.load("mnist", data_dir=tmp_path, manual_dir=value if value is not None else 3),
    ):
        with pytest.raises(InputError, match=r"(dataset|data_dir|manual_dir): received"):
            call()


LONG = "x" * 5000


@pytest.mark.parametrize("name", [LONG, f"{LONG}.npz", f"./{LONG}", "a\nb.npz", "a\tb/", "\x1b[31m.npz", "\u202e.npz"])
def test_names_that_no_line_holds(refused, tmp_path, name):
    for flags in (("train", "--dataset", name), ("train", "--output", name, "--dataset", name)):
        line = refused(*flags, cwd=tmp_path)
        assert line.isprintable()
    refused("train", "--resume", name, cwd=tmp_path)
    refused("evaluate", "--run", name, cwd=tmp_path)
    refused("compare", "--runs", name, cwd=tmp_path)


def test_one_line():
    assert one_line("a\nb\x1b") == "a\\nb\\x1b"
    assert len(one_line("y" * 10**6, 100)) < 140
    assert one_line("y" * 90 + "end", 60).endswith("end")
    assert one_line("äß中") == "äß中"


@pytest.mark.parametrize("name", ["$", "a$b$c", "$\\frac{", "x\ny", "y" * 300, "^_{", "中文", "\\", "%s {0}"])
def test_names_in_figures(small, tmp_path, name):
    """After hours of training there is a figure, whatever the classes, files and folders are called."""
    renamed = dataclasses.replace(small, name=name, class_names=(name,) * 10)
    config = small_config()
    history = [{"epoch": 1, "train": dict.fromkeys(TERMS, 1.0), "test": dict.fromkeys(TERMS, 1.0)}]
    options = FigureOptions(steps=2, grid_side=2)
    assert len(rendered({"A": HALVES["torch"]}, config, renamed, tmp_path, options, [history])) == 6


def test_a_dollar_stays_a_dollar():
    assert plotting.plain("a$b$") == r"a\$b\$"
    text = Figure().text(0, 0, plotting.plain("5$ and 6$"))
    assert text._preprocess_math(text.get_text()) == ("5$ and 6$", False)


NAMES = [np.array([b"caf\xe9", b"\xff", b"ok"]), np.array(["a", "é", "中"]), [b"\xe4\xb8\xad", b"b", b"c"], [1, 2, 3]]


@pytest.mark.parametrize("names", NAMES)
def test_class_names_of_any_kind(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    dataset = datasets.load(npz(tmp_path, class_names=names))
    assert len(dataset.class_names) == 3
    assert all(isinstance(name, str) for name in dataset.class_names)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: {},
        lambda s: [],
        lambda s: {key: value for key, value in s.items() if key != "test"},
        lambda s: {key: value for key, value in s.items() if key != "environment"},
        lambda s: {key: value for key, value in s.items() if key != "epochs"},
        lambda s: s | {"test": {}},
        lambda s: s | {"test": s["test"] | {"kl_nats": "much"}},
        lambda s: s | {"test": s["test"] | {"kl_nats": float("nan")}},
        lambda s: s | {"test": None},
        lambda s: s | {"epochs": "2"},
        lambda s: s | {"epochs": 9},
        lambda s: s | {"environment": {"device": 3}},
        lambda s: s | {"environment": []},
        lambda s: s | {"median_images_per_second": "fast"},
        lambda s: s | {"framework": "tensorflow"},
    ],
)
def test_a_summary_that_was_edited(refused, small, tmp_path, edit):
    (tmp_path / "r").mkdir()
    trainer.train(HALVES["torch"], small_config(), small, tmp_path / "r")
    path = tmp_path / "r" / "summary.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    refused("compare", "--runs", "r", cwd=tmp_path)
    path.write_text(path.read_text()[:-20])
    refused("compare", "--runs", "r", cwd=tmp_path)


def test_an_environment_of_an_earlier_version(small, tmp_path):
    """Its summary has fewer fields."""
    for name, half in HALVES.items():
        (tmp_path / name).mkdir()
        trainer.train(half, small_config(), small, tmp_path / name)
    path = tmp_path / "jax" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["environment"]["flags"], summary["environment"]["versions"], summary["data"]
    path.write_text(json.dumps(summary))
    options = ClaimOptions()
    _, groups, _ = group_runs([tmp_path / name for name in HALVES], list(HALVES), options)
    found = compare.compare(HALVES, groups, small, tmp_path, FigureOptions(steps=2, grid_side=2), [], options)
    assert found["environment"]["torch"]["versions"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_letters(tmp_path, encoding):
    npz(tmp_path, "中$.npz", class_names=["é", "ß", "中"])
    quick = ["--dataset", "中$.npz", "--batch-size", "4", "--epochs", "1", "--hidden", "4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-W", "ignore", "-m", "scripts.sweep", "--frameworks", "torch", *quick, "--output", "ü"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr.decode()


@pytest.mark.parametrize("platform", ["nowhere", "cuda"])
def test_platforms_that_are_not_there(tmp_path, platform):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platform}
    command = [sys.executable, "-W", "ignore", "-m", "scripts.train", "--framework", "jax"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "unset JAX_PLATFORMS" in result.stderr
    assert not list(tmp_path.iterdir())


def test_no_compiler(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refused("train", "--framework", "torch", "--execution", "compile", cwd=tmp_path, said="C++ compiler")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        HALVES["torch"].device_for(small_config(training=TrainingConfig(execution="compile")))


@pytest.mark.parametrize("claim", [2**40, 2**62])
def test_an_archive_that_claims_terabytes(tmp_path, refused, claim):
    npz(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = members["train_images.npy"]
    shape = f"({claim // 48}, 8, 6, 1)".encode()
    grown = header[:128].replace(b"(24, 8, 6, 1)", shape).replace(b" " * (len(shape) - 13), b"", 1)
    members["train_images.npy"] = grown.ljust(128, b" ")[:127] + b"\n" + header[128:]
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    refused("train", "--dataset", "b.npz", cwd=tmp_path, said="b.npz")
