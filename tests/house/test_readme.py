"""The README is short, what it and the pages name exists, the site builds, and its code runs."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.flax
import safetensors.torch
from flax import nnx

from tests.configs import small_config
from tests.conftest import COMMON, HALVES, ROOT
from vae_common.config import NetworkConfig
from vae_common.runs.checkpoints import write_weights

README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "results" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert not re.findall(r"@[A-Z0-9]+@|\{[A-Z]+\}", README)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_tests_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in set(re.findall(r"`(test_\w+)`", text)) - {"test_images", "test_labels"}:  # arrays of a data set
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`(?:tests/[\w/]*)?(test_\w+\.py)`", text):
        assert list((ROOT / "tests").rglob(name)), name


def test_known_differences_are_pinned():
    known = (ROOT / "docs" / "known-differences.md").read_text()
    assert known.count("`test_") > 20


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if line.startswith("python3 -m venv") and "pytest" in line)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_ten_lines_run(tmp_path, command):
    """As printed, on a run that is there."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert command("train", "--epochs", 1, "--hidden", 8, "--latent-dim", 8, "--output", "runs/jax-vae-digits-seed0",
                   cwd=tmp_path).status == 0  # fmt: skip
    environment = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    quick = code.replace("image_shape=digits.image_shape,", "image_shape=digits.image_shape, training=QUICK,")
    first = "from vae_common.config import TrainingConfig; QUICK = TrainingConfig(epochs=1)\n"
    import os

    result = subprocess.run(
        [sys.executable, "-c", first + quick], cwd=tmp_path, env=os.environ | environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "total_nats" in result.stdout


def test_the_site_builds(tmp_path):
    """Warnings are errors; the tutorial's code is run."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", tmp_path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "tutorial.html").read_text().count("<img") >= 2  # its figures


@pytest.mark.parametrize("model", COMMON)
def test_weights_without_this_code(model, tmp_path, monkeypatch):
    """Both snippets of docs/running.md, on every model: what is loaded encodes and decodes as what was saved."""
    section = (ROOT / "docs" / "running.md").read_text().partition("## Weights without this code")[2]
    in_torch, in_flax = re.findall(r"```python\n(.*?)```", section, re.S)[:2]
    config = small_config(model, network=NetworkConfig(channels=(2, 3), hidden=(7, 6), latent_dim=3, classes=4))
    images, labels = np.random.default_rng(0).random((5, 28, 28, 1)), np.arange(5) % 4
    other = replace(config, seed=1)
    monkeypatch.chdir(tmp_path)
    for name, snippet in (("torch", in_torch), ("jax", in_flax)):
        half = HALVES[name]
        saved = half.create_model(config)
        write_weights("weights.safetensors", half.to_arrays(saved))
        loaded = half.create_model(other)
        with half.precision("float64"):
            exec(snippet, {"model": loaded, "safetensors": safetensors, "nnx": nnx})
        for key, array in half.to_arrays(loaded).items():
            np.testing.assert_array_equal(array, half.to_arrays(saved)[key], err_msg=key)
        np.testing.assert_array_equal(half.encode(loaded, images, labels).mean, half.encode(saved, images, labels).mean)
