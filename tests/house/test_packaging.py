"""A wheel, installed where one framework is missing: the half that is there trains, evaluates, plots and goes on."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

OTHERS = {
    "jax": ("torch", "torchgen", "functorch", "tensorflow", "tensorflow_datasets", "keras"),
    "torch": ("jax", "jaxlib", "flax", "optax", "tensorflow", "tensorflow_datasets", "keras"),
}
"""By half, what an installation of it alone does not have."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("jax_vae", "torch_vae", "vae_common", "scripts", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, wheel: Path, without: tuple[str, ...]) -> Path:
    """A new environment with the wheel, and everything that is installed here but for some packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.name.partition("-")[0].partition(".")[0] not in without:
            (packages / path.name).symlink_to(path)
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q", "--no-deps", wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin"


def test_what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"jax_vae", "torch_vae", "vae_common"}
    assert {"vae_common/comparison/report.html.jinja", "vae_common/comparison/fault_table.json"} <= set(names)
    assert "vae_common/data/datasets.py" in names
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("METADATA"))).decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert not any(name in line for line in needed for name in ("jax", "torch", "flax", "tensorflow"))


@pytest.mark.parametrize("half", OTHERS)
def test_one_half_alone(wheel, tmp_path, half):
    bin = environment(tmp_path / "env", wheel, OTHERS[half])

    def run(*words, status=0):
        done = subprocess.run(
            [bin / words[0], *map(str, words[1:])], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout.splitlines()[-1] if done.stdout else done.stderr.strip()

    quick = ("--epochs", 1, "--hidden", 16, "--output", "r")
    trained = json.loads(run("twin-vae", "train", "--framework", half, *quick))
    assert trained["framework"] == half
    assert json.loads(run("twin-vae", "train", "--resume", "r", "--epochs", 2))["epochs"] == 2
    assert json.loads(run("twin-vae", "evaluate", "--run", "r", "--samples", 0))["epoch"] == 2
    figures = json.loads(run("twin-vae", "plot", "--run", "r", "--grid-side", 3, "--steps", 3))["figures"]
    assert all((tmp_path / figure).stat().st_size > 1000 for figure in figures)
    code = (
        f"import sys, {half}_vae as half, numpy as np; model, config = half.load('r'); "
        f"print(half.sample(model, 2).shape, sorted(set({OTHERS[half]!r}) & set(sys.modules)))"
    )
    assert run("python", "-c", code) == "(2, 28, 28, 1) []"
    (other,) = set(OTHERS) - {half}
    said = run("twin-vae", "train", "--framework", other, status=2)
    assert said.startswith(f"error: framework: {other} needs ")
    assert f"pip install '.[{other}]'" in said
