"""scripts.compare as its users run it: both halves trained, or finished runs taken, and the verdicts."""

import json

import numpy as np
import pytest

from tests.conftest import HALVES, QUICK, process, script
from vae_common.comparison.options import ClaimOptions
from vae_common.comparison.training import group_runs
from vae_common.errors import InputError


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
    """As a process of its own: JAX compiles as it does for users."""
    flags = ("--check", "lockstep", "--lockstep-steps", 5, "--epochs", 1, "--hidden", 16)
    result = process("compare", *flags, "--models", "vae", "two_layer_vae", cwd=tmp_path)
    assert [claim["verdict"] for claim in result["claims"]] == ["equal", "equivalent"] * 2
    page = (tmp_path / "runs" / "compare-digits" / "report.html").read_text()
    assert page.index("What was checked") < page.index("Test loss per image")
    summary = json.loads((tmp_path / "runs" / "compare-digits" / "summary.json").read_text())
    assert len(summary["models"]["vae"]["drift"]["float32"]["total"]) == 5
    assert summary["claims"][0]["largest_difference"]["total"] < 1e-11


def test_check_independent_uses_disjoint_seeds_and_fails_where_nothing_is_shown(tmp_path):
    """Two seeds cannot show equivalence: exit status 1, with the report all the same."""
    flags = ("--check", "independent", "--seeds", 0, 1, "--models", "vae", *QUICK)
    result = script("compare", *flags, cwd=tmp_path, status=1)
    verdicts = {claim["claim"]: claim["verdict"] for claim in result["claims"]}
    assert "not decided" in verdicts.values()
    names = sorted(path.name for path in (tmp_path / "runs" / "compare-digits" / "runs").iterdir())
    assert names == ["jax-vae-seed0", "jax-vae-seed1", "torch-vae-seed2", "torch-vae-seed3"]
    config = json.loads((tmp_path / "runs/compare-digits/runs/jax-vae-seed0/config.json").read_text())["config"]
    assert config["training"]["randomness"] == "native"
    finished = [tmp_path / "runs/compare-digits/runs" / name for name in names]
    _, groups, _ = group_runs(finished, list(HALVES), ClaimOptions("independent"))
    assert groups["vae"] == {
        0: {"jax": finished[0], "torch": finished[2]},
        1: {"jax": finished[1], "torch": finished[3]},
    }
    for check, folders, said in (
        ("paired", finished, "received native for --check paired, expected shared or counter"),
        ("independent", finished[:3], r"jax has seeds \[0, 1\]; torch has seeds \[2\]; expected as many of each half"),
        ("none", finished, r"torch has seeds \[2, 3\]; expected the same"),
    ):
        with pytest.raises(InputError, match=said):
            group_runs(folders, list(HALVES), ClaimOptions(check))


def test_compare_refuses_runs_that_do_not_pair(finished):
    said = script("compare", "--runs", "jax", cwd=finished, status=2)
    assert "of vae, jax has seeds [0]; torch has seeds []; expected the same" in said
    script("train", "--framework", "torch", "--output", "other", "--epochs", "1", cwd=finished)
    said = script("compare", "--runs", "jax", "other", cwd=finished, status=2)
    assert "differ in more than model, seed and device" in said


def test_compare_trains_models_and_seeds(tmp_path):
    result = script("compare", "--seeds", 0, 1, *QUICK, "--precision", "float64", cwd=tmp_path)
    assert set(result["models"]) == {"ae", "vae"}
    for model in result["models"].values():
        assert abs(model["relative_difference"]["total_nats"]) < 1e-10
    summary = json.loads((tmp_path / "runs" / "compare-digits" / "summary.json").read_text())
    total = summary["models"]["vae"]["losses"]["total_nats"]
    assert total["verdict"]["outcome"] == "equivalent"
    assert total["verdict"]["paired"] is True
    assert total["jax"]["std"] > 0


def test_ensemble_are_the_same_runs(tmp_path):
    """In one program or one by one: the same folders, the same losses; and any of them can go on by itself."""
    flags = ("--models", "vae", "--seeds", 0, 1, *QUICK, "--precision", "float64")
    by_kind = {}
    for kind in ((), ("--ensemble",)):
        script("compare", *flags, *kind, "--output", f"c{len(kind)}", cwd=tmp_path)
        summary = json.loads((tmp_path / f"c{len(kind)}" / "summary.json").read_text())
        by_kind[kind] = summary["models"]["vae"]["losses_by_seed"]
    one_by_one, together = by_kind.values()
    for framework, of_seeds in one_by_one.items():
        for a, b in zip(of_seeds, together[framework]):
            assert a == pytest.approx(b, rel=1e-12)
    run = tmp_path / "c1" / "runs" / "torch-vae-seed1"
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["ensemble"] == 2
    assert script("train", "--resume", run, "--framework", "jax", "--epochs", 3, cwd=tmp_path)["epochs"] == 3


def test_a_handful_of_images(tmp_path):
    """Whatever is not defined for so few is left out, not an error after the training."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 6, 5, 3), np.uint8), np.arange(12) % 5
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images[:3], y_test=labels[:3])
    script("compare", "--dataset", "few.npz", "--batch-size", 4, *QUICK, cwd=tmp_path)
    page = (tmp_path / "runs" / "compare-few" / "report.html").read_text()
    assert "not defined" in page
