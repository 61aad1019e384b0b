"""Ruff and mypy find nothing, and files keep to their lengths."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_clean(command):
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("folder", "most"), [("jax_vae", 300), ("torch_vae", 300), ("vae_common", 300), ("scripts", 60), ("tests", 200)]
)
def test_files_are_short(folder, most):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= most, path
