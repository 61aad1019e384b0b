"""The scripts as their users run them: good input ends in JSON, bad input in one line and status 2."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

QUICK = ("--epochs", "2", "--hidden", "32")


def script(name, *flags, cwd, status=0):
    """Runs it in a folder of its own; returns the last line's JSON, or the error line."""
    environment = {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        check=False,
    )
    assert result.returncode == status, result.stderr
    if status == 0 or result.stdout:
        return json.loads(result.stdout.splitlines()[-1])
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with one finished run of each half."""
    folder = tmp_path_factory.mktemp("scripts")
    for framework in ("jax", "torch"):
        script("train", "--framework", framework, "--output", framework, *QUICK, cwd=folder)
    return folder


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


def test_compare_finished_runs(finished):
    result = script("compare", "--runs", "jax", "torch", "--output", "c", cwd=finished)
    vae = result["models"]["vae"]
    assert abs(vae["relative_difference"]["total_nats"]) < 1e-3
    for framework in ("jax", "torch"):
        summary = json.loads((finished / framework / "summary.json").read_text())
        assert vae[framework] == summary["test"]
    page = (finished / "c" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 8
    assert "http" not in page.replace("http-equiv", "")
    summary = json.loads((finished / "c" / "summary.json").read_text())
    assert summary["models"]["vae"]["latents_between_halves"][0]["linear_cka"] > 0.99


def test_check_lockstep_ends_in_verdicts(tmp_path):
    flags = ("--check", "lockstep", "--lockstep-steps", 5, "--epochs", 1, "--hidden", 16, "--models", "vae")
    result = script("compare", *flags, cwd=tmp_path)
    assert [claim["verdict"] for claim in result["claims"]] == ["equal"]
    page = (tmp_path / "runs" / "compare-digits" / "report.html").read_text()
    assert page.index("Verdicts") < page.index("Test loss per image")
    summary = json.loads((tmp_path / "runs" / "compare-digits" / "summary.json").read_text())
    assert len(summary["models"]["vae"]["drift"]["float32"]["total"]) == 5
    assert summary["claims"][0]["numbers"]["largest difference, total"] < 1e-11


def test_check_independent_uses_disjoint_seeds_and_fails_where_nothing_is_shown(tmp_path):
    """Two seeds cannot show equivalence: exit status 1, with the report all the same."""
    flags = ("--check", "independent", "--seeds", 0, 1, "--models", "vae", *QUICK)
    result = script("compare", *flags, cwd=tmp_path, status=1)
    verdicts = {claim["claim"]: claim["verdict"] for claim in result["claims"]}
    assert "not shown" in verdicts.values()
    names = sorted(path.name for path in (tmp_path / "runs" / "compare-digits" / "runs").iterdir())
    assert names == ["jax-vae-seed0", "jax-vae-seed1", "torch-vae-seed2", "torch-vae-seed3"]
    config = json.loads((tmp_path / "runs/compare-digits/runs/jax-vae-seed0/config.json").read_text())["config"]
    assert config["training"]["randomness"] == "native"


def test_compare_refuses_runs_that_do_not_pair(finished):
    said = script("compare", "--runs", "jax", cwd=finished, status=2)
    assert "of vae, jax has seeds [0]; torch has seeds []; expected the same" in said
    script("train", "--framework", "torch", "--output", "other", "--epochs", "1", cwd=finished)
    said = script("compare", "--runs", "jax", "other", cwd=finished, status=2)
    assert "differ in more than model, seed and device" in said


def test_compare_trains_models_and_seeds(tmp_path):
    result = script("compare", "--seeds", 0, 1, *QUICK, "--dtype", "float64", cwd=tmp_path)
    assert set(result["models"]) == {"ae", "vae"}
    for model in result["models"].values():
        assert abs(model["relative_difference"]["total_nats"]) < 1e-10
    summary = json.loads((tmp_path / "runs" / "compare-digits" / "summary.json").read_text())
    total = summary["models"]["vae"]["losses"]["total_nats"]
    assert total["within_seed_spread"] is True
    assert total["jax"]["std"] > 0


@pytest.mark.parametrize("framework", ["torch", "both"])
def test_tutorial_runs_with_its_own_preset(tmp_path, framework):
    flags = ("--framework", framework, "--dataset", "digits", "--epochs", "1", "--window", "-5", "10", "-10", "5")
    result = script("tutorial", *flags, cwd=tmp_path)
    assert set(result["models"]) == {"ae", "vae"}
    folder = tmp_path / "runs" / "tutorial-digits"
    config = json.loads((folder / "runs" / "torch-vae-seed0" / "config.json").read_text())["config"]
    assert config["loss"] == {"reconstruction": "squared_error", "beta": 1.0, "kl": "tutorial", "reduction": "sum"}
    assert (config["network"]["hidden"], config["training"]["batch_size"]) == ([512], 128)
    assert (folder / "figures" / "vae" / "interpolation.png").exists()
    assert (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("train", ["--epochs", "-1"], "epochs: received -1, expected an integer >= 0"),
        ("train", ["--epochs", "many"], "--epochs"),
        ("train", ["--model", "gan"], "invalid choice 'gan'"),
        ("train", ["--hiden", "3"], "Perhaps you meant: --hidden"),
        ("train", ["--preset", "none"], "invalid choice 'none'"),
        ("train", ["--dataset", "mnistt"], "did you mean mnist"),
        ("train", ["--dataset", "nowhere.npz"], "does not exist"),
        ("train", ["--batch-size", "5000"], "at most the 1500 training images"),
        ("train", ["--device", "tpu", "--framework", "torch"], "device: received tpu"),
        ("train", ["--validation-size", "1500"], "expected fewer than the 1500"),
        ("plot", [], "expected --run with a run's folder"),
        ("plot", ["--run", "nowhere"], "nowhere does not exist"),
        ("compare", ["--runs", "nowhere"], "did not finish"),
        ("compare", ["--seeds", "0", "0"], "seeds: received [0, 0], expected at least one, each once"),
        ("compare", ["--seeds", "-1"], "seed: received -1"),
        ("compare", ["--models"], "models"),
        ("compare", ["--models", "gan"], "invalid choice 'gan'"),
        ("compare", ["--interpolate", "0", "297"], "received 297, expected test images 0 to 296"),
        ("compare", ["--check", "paired"], "received 1 for --check paired, expected at least 2"),
        ("compare", ["--window", "1", "0", "0", "1"], "expected x0 < x1 and y0 < y1"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, name, flags, said):
    assert said in script(name, *flags, cwd=tmp_path, status=2)
    assert not [path for path in tmp_path.rglob("*") if path.name != "data"]


def test_a_handful_of_images(tmp_path):
    """Whatever is not defined for so few is left out, not an error after the training."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (12, 6, 5, 3), np.uint8), np.arange(12) % 5
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images[:3], y_test=labels[:3])
    script("compare", "--dataset", "few.npz", "--batch-size", 4, *QUICK, cwd=tmp_path)
    page = (tmp_path / "runs" / "compare-few" / "report.html").read_text()
    assert "not defined" in page


def test_divergence_is_one_line_and_leaves_a_checkpoint(tmp_path):
    flags = ("--learning-rate", "1e18", "--output", "r", *QUICK)
    said = script("train", *flags, cwd=tmp_path, status=1)
    assert "became infinite or NaN in epoch 1, step" in said
    assert (tmp_path / "r" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "r" / "summary.json").exists()
