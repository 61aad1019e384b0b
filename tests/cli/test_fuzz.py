"""Random words on the command line and random values into public functions: never a traceback, never a mess.

`--fuzz 2000` tries that many of each instead of the suite's own few.
"""

import dataclasses
import itertools
import json
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.configs import small_config
from tests.conftest import HALVES, SMALL_IMAGES, SMALL_LABELS, contents, npz
from vae_common import files, randomness
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.data import datasets
from vae_common.data.seen import binarize
from vae_common.errors import InputError, one_line
from vae_common.metrics import descriptors, similarity
from vae_common.runs import checkpoints, trainer
from vae_common.runs.epoch_records import NonFiniteLoss
from vae_common.runs.folder import Run

STATUSES = {0, 1, 2, 129, 130, 141, 143}
FEW = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
NUMBERS = ["0", "1", "2", "-1", "0.5", "1e-3", "1e30", "1e300", "nan", "inf", "2147483648", "9" * 40, "x", "", "1,2"]
# Of a training that ends soon: nothing here is a number of epochs, draws or rounds that never would.
FLAGS = {
    "--framework": ["jax", "torch", "evil", ""],
    "--frameworks": ["jax", "torch", "evil"],
    "--model": ["ae", "vae", "two_layer_vae", "vq_vae", "gan"],
    "--models": ["ae", "vae", "gan"],
    "--seed": ["0", "3", "-1", "9223372036854775808", "x"],
    "--seeds": ["0", "1", "-1", "x"],
    "--preset": ["default", "tutorial", "none"],
    "--reconstruction": ["bernoulli", "gaussian", "learned_gaussian", "discretized_logistic", "x"],
    "--objective": ["elbo", "iwae", "dreg", "x"],
    "--kl": ["gaussian", "sampled", "tutorial", "x"],
    "--binarization": ["none", "threshold", "static", "dynamic", "x"],
    "--precision": ["float32", "float64", "tf32", "bfloat16", "x"],
    "--execution": ["auto", "eager", "graph", "x"],
    "--device": ["auto", "cpu", "cuda", "tpu", "x"],
    "--dataset": ["a.npz", "labelled.npz", "colour.npz", "run", ".", "nowhere.npz", "a.npz/x", "$.npz", "\n", ""],
    "--output": ["new", "run", "a.npz", "new/deep", ".", "", "\n", "x" * 300],
    "--run": ["run", "other", ".", "nowhere", "a.npz", ""],
    "--runs": ["run", "other", "nowhere"],
    "--resume": ["run", "other", ".", "nowhere", "a.npz", ""],
    "--classes": ["0", "3", "4", "-1", "x"],
    "--vary": ["loss.beta=1,4", "loss.beta=1,1", "model=ae,vae", "x=1", "loss.beta", "network.hidden=[4],[4,4]", "="],
    "--split": ["test", "train", "validation", "x"],
    "--check": ["none", "paired", "independent", "x"],
    "--window": ["0 1 0 1", "1 0 0 1", "nan 1 0 1", "x"],
    "--interpolate": ["0 1", "0 99", "-1 0", "x"],
    "--unknown": ["1"],
    "--epochs": ["0", "1", "-1", "x", "1.5", "2147483648"],
    "--samples": ["0", "3", "-1", "x", "9999999999"],
    "--steps": ["2", "1", "-1", "x", "9999999999"],
    "--grid-side": ["2", "0", "x", "9999999999"],
}
SIZES = ["4", "1", "0", "-1", "x", "2147483648", "2000000000"]
FLAGS |= {f"--{name}": SIZES for name in ("hidden", "channels", "latent-dim", "code-dim", "codes", "top-dim")}
OF_COUNTS = ("batch-size", "samples", "validation-size", "checkpoint-every", "kl-warmup", "warmup-steps")
OF_RATES = ("learning-rate", "beta", "free-bits", "sigma", "beta1", "eps", "clip-norm")
FLAGS |= {f"--{name}": NUMBERS for name in (*OF_COUNTS, *OF_RATES)}
SCRIPTS = {
    "train": ("--dataset", "a.npz", "--epochs", "1", "--hidden", "4", "--batch-size", "6"),
    "sweep": ("--dataset", "a.npz", "--epochs", "1", "--hidden", "4", "--batch-size", "6", "--frameworks", "torch"),
    "compare": ("--dataset", "a.npz", "--epochs", "1", "--hidden", "4", "--batch-size", "6", "--models", "vae"),
    "evaluate": ("--run", "run", "--samples", "3"),
    "plot": ("--run", "run", "--steps", "2", "--grid-side", "2"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs and three sets."""
    folder = tmp_path_factory.mktemp("fuzz")
    npz(folder, train_labels=None, test_labels=None)
    npz(folder, "labelled.npz")
    colour = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 4), np.uint8)
    npz(folder, "colour.npz", train_images=colour, test_images=colour[:6])
    training = TrainingConfig(batch_size=6, epochs=1)
    network = NetworkConfig(hidden=(4,), latent_dim=2)
    data = DataConfig(dataset=str(folder / "labelled.npz"))
    config = small_config(image_shape=(8, 6, 1), network=network, training=training, data=data)
    for name, half in zip(("run", "other"), HALVES.values()):
        (folder / name).mkdir()
        trainer.train(half, config, datasets.load(folder / "labelled.npz"), folder / name)
    return folder


def words_of(flag):
    return st.sampled_from(FLAGS[flag]).map(lambda value: [flag, *(value.split(" ") if value.strip() else [value])])


WORDS = st.lists(st.sampled_from(sorted(FLAGS)).flatmap(words_of), min_size=1, max_size=3).map(
    lambda of: [*itertools.chain(*of)]
)


def test_the_command_line(folder, command, pytestconfig):
    """Every outcome is one of a command's; a refusal is one line, writes nothing and loses nothing."""
    seen = {}

    @settings(max_examples=pytestconfig.getoption("fuzz") or 80, **FEW)
    @given(st.sampled_from(sorted(SCRIPTS)), WORDS)
    def run(name, words):
        before = contents(folder)
        done = command(name, *SCRIPTS[name], *words, cwd=folder)
        said = (name, words, done)
        assert done.status in STATUSES, said
        assert "Traceback" not in done.err, said
        lines = [line for line in done.err.splitlines() if not line.startswith(("comparing ", "notice: "))]
        if done.status == 2:
            assert len(lines) == 1, said
            assert lines[0].startswith("error: "), said
            assert contents(folder) == before, said
        elif done.status == 0:
            json.loads(done.out.splitlines()[-1])
        after = contents(folder)
        kept = {path for path in before if not path.startswith(("run/", "other/", "new", "runs/"))}
        assert all(after.get(path) == before[path] for path in kept), said
        seen[done.status] = seen.get(done.status, 0) + 1

    run()
    assert seen.get(0, 0) >= 5, seen
    assert seen.get(2, 0) >= 20, seen


ARRAYS = [
    SMALL_IMAGES,
    SMALL_IMAGES > 127,
    SMALL_IMAGES / 255,
    SMALL_IMAGES.astype(np.float16) / np.float16(255),
    SMALL_IMAGES[..., 0],
    SMALL_IMAGES.reshape(24, -1),
    np.asfortranarray(SMALL_IMAGES),
    SMALL_IMAGES[::-2],
    (SMALL_IMAGES / 255).astype(">f8"),
    torch.tensor(SMALL_IMAGES / 255, requires_grad=True),
    SMALL_IMAGES // 200,
    SMALL_IMAGES.astype(np.int64),
    SMALL_IMAGES * 1j,
    SMALL_IMAGES[0],
    SMALL_IMAGES[:0],
    np.full((2, 48), np.nan),
    np.zeros((2, 3)),
    np.zeros((4, 2)),
    np.zeros((24, 2)),
    np.zeros((24, 3, 2)),
    np.array("x"),
    np.array([object()]),
    np.ma.masked_array(SMALL_IMAGES / 255, mask=False),
    [[0.5] * 48],
    [[1], [2, 3]],
    None,
    "x",
    3,
]
LABELS = [None, SMALL_LABELS, SMALL_LABELS + 1, SMALL_LABELS[:3], (0, 1), [0.5], "x", np.int64(1), -SMALL_LABELS]
COUNTS = [0, 1, 3, -1, 2.5, True, None, "3", np.int64(2), 2**200, [1]]
CLASSES = [0, 3]


def of(half, classes, mode):
    config = small_config(
        image_shape=(8, 6, 1),
        network=NetworkConfig(hidden=(4,), latent_dim=2, classes=classes),
        data=DataConfig(binarization=mode),
    )
    return config, half.create_model(config), half.create_state(config)


class Given(NamedTuple):
    """What a call may use."""

    config: Config
    model: Any
    state: Any
    a: Any
    b: Any
    labels: Any
    number: Any


CALLS = {
    "forward": lambda h, g: h.forward(g.model, g.a, g.b, g.labels),
    "encode": lambda h, g: h.encode(g.model, g.a, g.labels),
    "decode": lambda h, g: h.decode(g.model, g.b, g.labels),
    "reconstruct": lambda h, g: h.reconstruct(g.model, g.a, g.labels),
    "sample": lambda h, g: h.sample(g.model, g.number, g.number, g.labels),
    "interpolate": lambda h, g: h.interpolate(g.model, g.a, g.a, g.number, g.labels),
    "interpolate one": lambda h, g: h.interpolate(g.model, SMALL_IMAGES[0], SMALL_IMAGES[1], g.number, g.labels),
    "evaluate": lambda h, g: h.evaluate(g.model, g.a, g.config, g.labels),
    "log_marginal": lambda h, g: h.log_marginal(g.model, g.a, g.config, g.number, g.labels),
    "train_step": lambda h, g: h.train_step(g.state, g.a, g.b, g.labels),
    "gradients": lambda h, g: h.gradients(g.state, g.a, g.b, g.labels),
    "place_images": lambda h, g: h.place_images(g.a, g.config),
    "place_labels": lambda h, g: h.place_labels(g.labels, g.config),
    "epoch_draws": lambda h, g: h.epoch_draws(g.config, 0, g.number),
    "create_state": lambda h, g: h.create_state(g.config, g.a),
    "load_arrays": lambda h, g: h.state_from_arrays(g.config, {"encoder.mean.weight": g.b}),
    "select_device": lambda h, g: h.select_device(g.number),
    "binarize": lambda h, g: binarize(g.a, g.labels, g.number),
    "hold_out": lambda h, g: datasets.load("digits").hold_out(g.number),
    "load": lambda h, g: datasets.load(g.number),
    "require_labels": lambda h, g: datasets.load("digits").require_labels(3),
    "Config": lambda h, g: Config(seed=g.number, image_shape=g.labels, model=g.number),
    "NetworkConfig": lambda h, g: NetworkConfig(hidden=g.labels, latent_dim=g.number, codes=g.number),
    "LossConfig": lambda h, g: LossConfig(beta=g.number, free_bits=g.a, samples=g.number),
    "OptimizerConfig": lambda h, g: OptimizerConfig(beta1=g.number, eps=g.b, decay_steps=g.number),
    "from_json": lambda h, g: Config.from_json({"seed": g.number, "network": g.labels}),
    "Run": lambda h, g: Run(files.Path(str(g.number))).summary(),
    "read": lambda h, g: checkpoints.read(str(g.number)),
}


@pytest.mark.parametrize("framework", HALVES)
def test_public_functions(framework, pytestconfig):
    """A result or an InputError of one line; whatever else it is, it is a fault."""
    half = HALVES[framework]
    kept = {(classes, mode): of(half, classes, mode) for classes in CLASSES for mode in ("none", "static")}
    seen = dict.fromkeys(CALLS, 0)

    @settings(max_examples=pytestconfig.getoption("fuzz") or 300, **FEW)
    @given(
        st.sampled_from(sorted(CALLS)), st.sampled_from(sorted(kept)), st.sampled_from(ARRAYS), st.sampled_from(ARRAYS),
        st.sampled_from(LABELS), st.sampled_from(COUNTS),
    )  # fmt: skip
    def call(name, which, a, b, labels, number):
        config, model, state = kept[which]
        if name == "train_step":  # which consumes it
            state = half.create_state(config)
        seen[name] += 1
        try:
            CALLS[name](half, Given(config, model, state, a, b, labels, number))
        except InputError as error:
            assert str(error).isprintable(), (name, str(error))
            assert len(str(error)) < 1500
        except NonFiniteLoss:
            pass
        except MemoryError:
            assert number == 2**200

    call()
    assert len([name for name, count in seen.items() if count]) > len(CALLS) / 2


@settings(max_examples=60, **FEW)
@given(st.text(max_size=300), st.integers(20, 200))
def test_any_text_is_one_line(text, most):
    line = one_line(text, most)
    assert line.isprintable()
    assert len(line) <= most + 40


@settings(max_examples=40, **FEW)
@given(st.integers(0, 400), st.integers(1, 3), st.booleans())
def test_latents_of_any_number(rows, width, collapsed):
    rng = np.random.default_rng(rows)
    x = np.zeros((rows, width)) if collapsed else rng.normal(size=(rows, width))
    if rows:
        descriptors.describe(x, None, np.arange(rows) % 3, rng.random((rows, 2, 2, 1)))
        similarity.similarities(x, x, 50)
    assert len(randomness.some_rows(rows, 50)) == min(rows, 50)


def test_configs_that_are_taken_are_kept(pytestconfig):
    """Whatever a config takes it writes as JSON and reads back as itself."""

    @settings(max_examples=pytestconfig.getoption("fuzz") or 100, **FEW)
    @given(st.sampled_from(COUNTS), st.sampled_from(COUNTS), st.sampled_from(COUNTS))
    def made(seed, beta, width):
        try:
            config = Config(seed=seed, loss=LossConfig(beta=beta), network=NetworkConfig(hidden=[width]))
        except InputError:
            return
        assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
        assert hash(config) == hash(dataclasses.replace(config))

    made()
