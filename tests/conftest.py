"""Fixtures that every test shares."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from vae_common import files

# The tests compare arithmetic, on the CPU; set before either framework looks for an accelerator.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"  # pinned: a sum over threads has their number in its rounding
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as every script sets it where the user has not; JAX itself would set 1
# Compiled programs are kept between runs and shared by the processes of one: most of the time goes into compiling.
# What is planted or changed is another program, which JAX tells by its text; another processor has a folder of its own.
PROGRAMS = Path(__file__).resolve().parent.parent / ".pytest_cache" / f"programs-{files.processor()}"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(PROGRAMS)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# A run in the background ignores Ctrl-C, one under nohup SIGHUP; the processes that tests stop must not inherit that.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.SIG_DFL)

import jax

import jax_vae
import torch_vae
from tests.configs import small_config
from vae_common.cli import command_line
from vae_common.config import Config, NetworkConfig
from vae_common.config.registry import MODELS
from vae_common.contracts import NAMES
from vae_common.data import datasets
from vae_common.data.seen import seen_by
from vae_common.data.splits import Dataset, Split
from vae_common.figures import of_models
from vae_common.figures.options import FigureOptions
from vae_common.runs import checkpoints

ROOT = Path(__file__).resolve().parent.parent
HALVES = {"jax": jax_vae, "torch": torch_vae}
MOST_MAPS = 30_000
QUICKLY = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # later versions have no older emitters, and end at a flag that they do not know
    QUICKLY = f"--xla_cpu_use_fusion_emitters=false {QUICKLY}"
AS_HERE: dict[str, str] = {}
"""The environment of a process that compiles as this one does."""
CHECKOUT_ONLY = ("compile_for_tpu",)
QUICK = ("--epochs", "2", "--hidden", "32")


def pytest_addoption(parser):
    parser.addoption("--record", action="store_true", help="write fault_table.json and results/conformance.json anew")
    parser.addoption("--as-released", action="store_true", help="JAX compiles as it does for users, which takes longer")
    parser.addoption(
        "--fuzz", type=int, default=0, help="how many random inputs of each kind tests/cli/test_fuzz.py tries"
    )


def pytest_configure(config):
    """Lets JAX compile quickly in this process: by its older emitters, in one piece, without LLVM's optimizations.

    That halves the time. What tests start as processes of their own compiles as its users' does.
    """
    if config.getoption("as_released") or config.getoption("record"):
        return
    AS_HERE["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICKLY}".strip()
    AS_HERE["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", AS_HERE["XLA_FLAGS"])
        jax.devices()  # reads them
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", f"{PROGRAMS}-quickly")


def pytest_collection_finish():
    """Has Python look for cycles seldom, and not in what is imported: that took a worker a sixth of a sample."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """Lets go of compiled programs in time: each holds memory maps, of which a process may have 65,530."""
    yield
    maps = Path("/proc/self/maps")  # which takes a while to read
    if next(TESTS) % 16 == 0 and (not maps.exists() or maps.read_bytes().count(b"\n") > MOST_MAPS):
        jax.clear_caches()


@pytest.fixture(params=HALVES)
def half(request):
    """Each half in turn."""
    return HALVES[request.param]


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def small(digits) -> Dataset:
    """200 training and 70 test images."""
    train = Split(digits.train.images[:200], digits.train.labels[:200])
    test = Split(digits.test.images[:70], digits.test.labels[:70])
    return replace(digits, train=train, test=test)


@pytest.fixture(scope="session")
def mnist_files() -> Path:
    """MNIST's four original files."""
    folder = Path(os.environ.get("MNIST_FILES", ROOT.parent / "shared" / "datasets" / "mnist"))
    if not folder.is_dir():
        pytest.skip(f"MNIST's four original files are not in {folder}; set MNIST_FILES to their folder")
    return folder


COMMON = [name for name, entry in MODELS.items() if entry.common]
"""The models of the common encoder and decoder."""
SMALL_IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 6, 1), np.uint8)
SMALL_LABELS = np.arange(24) % 3


def term_rows(terms):
    """Total, reconstruction and KL of every step, (3, ...), in NumPy."""
    return np.array([np.asarray(getattr(terms, name)) for name in NAMES])


def npz(folder, name="a.npz", **changes):
    """A file of 24 training and 6 test images, with other arrays or (None) without some."""
    arrays = {"train_images": SMALL_IMAGES, "train_labels": SMALL_LABELS}
    arrays |= {"test_images": SMALL_IMAGES[:6], "test_labels": SMALL_LABELS[:6]}
    np.savez(folder / name, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return name


def rendered(halves, config, dataset, folder, options=FigureOptions(), histories=((),)):
    """The figures of untrained models, one for each half: name -> file."""
    seen = seen_by(config, dataset, "test")
    trained = {}
    for name, half in halves.items():
        model = half.create_model(config)
        means = half.encode(model, seen.images, seen.labels).mean
        trained[name] = of_models.TrainedModel(half, model, histories, means.reshape(len(means), -1))
    return of_models.render(trained, config, dataset, seen, folder, options)


def random_batch(config: Config, batch: int = 7, seed: int = 0):
    """Images in [0, 1] and noise, float64."""
    rng = np.random.default_rng(seed)
    return rng.random((batch, *config.image_shape)), rng.standard_normal((batch, config.noise_dim))


def process(name, *flags, cwd, status=0):
    """Runs a script as its users do, in a folder of its own; returns the last line's JSON, or the error line."""
    result = subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    return _last_line(Outcome(result.returncode, result.stdout, result.stderr), status)


def script(name, *flags, cwd, status=0):
    """What `process` does, in this process: nothing has to be imported or compiled anew."""
    return _last_line(run_here(name, flags, cwd), status)


class Outcome(NamedTuple):
    """What a script did."""

    status: int
    out: str
    err: str


def _last_line(done, status):
    assert done.status == status, done.err
    if status == 0 or done.out:
        return json.loads(done.out.splitlines()[-1])
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    return lines[0]


def run_here(name, flags, cwd):
    """Runs a script in this process, in a folder of its own."""
    home = "scripts" if name in CHECKOUT_ONLY else "vae_common.cli"
    module, words = importlib.import_module(f"{home}.{name}"), [str(flag) for flag in flags]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [name, *words])
        patch.setenv("PYTHONPATH", str(ROOT))  # for processes that it starts
        if hasattr(module, "load_halves"):  # without their caches of programs, which are this process's own
            patch.setattr(module, "load_halves", lambda *names, **_: {name: HALVES[name] for name in names})
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command_line.outcome(module, words)
    return Outcome(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with one finished run of each half."""
    folder = tmp_path_factory.mktemp("scripts")
    for framework in ("jax", "torch"):
        process("train", "--framework", framework, "--output", framework, *QUICK, cwd=folder)
    return folder


@pytest.fixture
def state(half, small):
    """Ten steps in: moments and step are not trivial. The layers include a square and a one-wide one."""
    config = small_config(network=NetworkConfig(hidden=(24, 24), latent_dim=1))
    config = replace(config, training=replace(config.training, epochs=1))
    return half.fit(half.create_state(config), small)


def saved(half, state, path):
    framework = half.__name__.removesuffix("_vae")
    checkpoint = checkpoints.Checkpoint(half.state_to_arrays(state), state.config, framework, 1, [{"epoch": 1}], "f")
    checkpoints.write(path, checkpoint)
    return checkpoint


@pytest.fixture
def command():
    """Runs a script in this process, in a folder of its own: `command("train", "--epochs", 1, cwd=tmp_path)`."""
    return lambda name, *flags, cwd: run_here(name, flags, cwd)


@pytest.fixture
def refused(command):
    """The one line with which a script refuses these flags: exit status 2, nothing written, nothing lost."""

    def run(name, *flags, cwd, said=""):
        before = contents(cwd)
        done = command(name, *flags, cwd=cwd)
        assert done.status == 2, (done.out, done.err)
        lines = done.err.splitlines()
        assert len(lines) == 1, done.err
        assert lines[0].startswith("error: ")
        assert len(lines[0]) < 1200
        assert said in lines[0]
        assert contents(cwd) == before
        return lines[0]

    return run


def contents(folder):
    """Every file and folder below, with what it holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.is_fifo()
    }
