"""Sweeps as jobs: submitit's local executor stands for SLURM."""

import json

import pytest

from tests.conftest import script
from vae_common.errors import InputError
from vae_common.studies import launchers

pytest.importorskip("submitit", reason="submitit is not installed")
SWEEP = (
    "sweep", "--vary", "loss.beta=1,4", "--hidden", "8", "--epochs", "1", "--launcher", "submitit", "--job",
    "timeout_min=5",
)  # fmt: skip


def test_a_sweep_of_jobs_is_the_sweep_itself_and_trains_nothing_twice(tmp_path):
    """Equal rows; a run that has finished is no job again, and one that was taken away is."""
    jobs = script(*SWEEP, "--frameworks", "torch", "--seeds", "0", "1", "--output", "jobs", cwd=tmp_path)
    here = [*SWEEP[:7], "--frameworks", "torch", "--seeds", "0", "1", "--output", "here"]
    assert jobs["points"] == script(*here, cwd=tmp_path)["points"]
    runs = sorted((tmp_path / "jobs").glob("torch-*"))
    assert len(runs) == 4
    written = {run: (run / "weights.safetensors").stat().st_mtime_ns for run in runs}
    (runs[0] / "summary.json").unlink()
    again = script(*SWEEP, "--frameworks", "torch", "--seeds", "0", "1", "--output", "jobs", cwd=tmp_path)
    assert again["points"] == jobs["points"]
    later = {run: (run / "weights.safetensors").stat().st_mtime_ns for run in runs}
    assert [run for run in runs if later[run] != written[run]] == runs[:1]
    assert json.loads((runs[0] / "config.json").read_text())["command"][-1]


def test_a_job_that_fails_is_said_and_the_others_end(tmp_path):
    job = launchers.Job("torch", ({"model": "gan"},), (str(tmp_path / "run"),), (), False, "diverged.json")
    with pytest.raises(InputError, match=r"launcher: 1 of 1 jobs failed \(job .*model: received 'gan'"):
        launchers.submit([job], tmp_path / "jobs", ["timeout_min=5"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["timeout_min"], "job: received timeout_min, expected name=value"),
        (["minutes=5"], "job: received minutes=5 .*expected submitit's own"),
    ],
)
def test_settings_that_there_are_not(settings, said, tmp_path):
    with pytest.raises(InputError, match=said):
        launchers.submit([], tmp_path / "jobs", settings)


def test_settings_without_a_launcher(tmp_path):
    said = script("sweep", "--job", "timeout_min=5", "--epochs", "1", cwd=tmp_path, status=2)
    assert "job: received ('timeout_min=5',), expected none without a launcher" in said
