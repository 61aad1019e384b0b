"""The scripts as their users run them: good input ends in JSON."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import QUICK, process, script


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_train_leaves_a_whole_run(finished, framework):
    run = finished / framework
    names = {path.name for path in run.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "checkpoint.safetensors", "weights.safetensors", "summary.json"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    assert [line["epoch"] for line in lines] == [1, 2]
    assert summary["test"] == lines[-1]["test"]
    assert summary["binarization"] == "none"
    assert json.loads((run / "config.json").read_text())["command"][:3] == ["python", "-m", "scripts.train"]


def test_train_never_writes_into_a_run_that_exists(finished):
    before = (finished / "jax" / "summary.json").read_text()
    said = script("train", "--output", "jax", *QUICK, cwd=finished, status=2)
    assert "jax exists and is not empty; choose another or delete it" in said
    assert (finished / "jax" / "summary.json").read_text() == before
    folders = [script("train", "--epochs", 0, "--hidden", 8, cwd=finished)["folder"] for _ in range(2)]
    assert folders == ["runs/jax-vae-digits-seed0", "runs/jax-vae-digits-seed0-2"]


def test_plot_in_either_half(finished):
    """Whoever trained it, the pictures are the same to a few grey levels."""
    for framework in ("jax", "torch"):
        result = script("plot", "--run", "jax", "--framework", framework, "--output", f"p-{framework}", cwd=finished)
        assert len(result["figures"]) == 6
    a, b = (
        np.asarray(Image.open(finished / f"p-{framework}" / "decoded_grid.png").convert("L"), float)
        for framework in ("jax", "torch")
    )
    a, b = (x[x.shape[0] // 5 :] for x in (a, b))  # below the titles
    assert a.std() > 30
    assert np.abs(a - b).mean() < 1


@pytest.mark.parametrize("framework", ["torch", "both"])
def test_tutorial_runs_with_its_own_preset(tmp_path, framework):
    flags = ("--framework", framework, "--dataset", "digits", "--epochs", "1", "--window", "-5", "10", "-10", "5")
    result = script("tutorial", *flags, cwd=tmp_path)
    assert set(result["models"]) == {"ae", "vae"}
    folder = tmp_path / "runs" / "tutorial-digits"
    config = json.loads((folder / "runs" / "torch-vae-seed0" / "config.json").read_text())["config"]
    expected = {"reconstruction": "squared_error", "beta": 1.0, "kl": "tutorial", "reduction": "sum"}
    assert config["loss"].items() >= expected.items()
    assert (config["network"]["hidden"], config["training"]["batch_size"]) == ([512], 128)
    assert (folder / "figures" / "vae" / "interpolation.png").exists()
    assert (folder / "report.html").exists()


def test_divergence_is_one_line_and_leaves_a_checkpoint(tmp_path):
    flags = ("--learning-rate", "1e18", "--output", "r", *QUICK)
    said = process("train", *flags, cwd=tmp_path, status=1)
    assert "became infinite or NaN in epoch 1, step" in said
    assert (tmp_path / "r" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "r" / "summary.json").exists()
