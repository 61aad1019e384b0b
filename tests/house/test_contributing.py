"""What CONTRIBUTING.md says, done in a copy of the project: the pair passes the suite, a wrong half fails it."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import HALVES, ROOT, small_config
from vae_common.config.registry import MODELS, register
from vae_common.conformance import signatures
from vae_common.errors import InputError

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
LINE, JAX, TORCH = re.findall(r"```python\n(.*?)```", TEXT, re.S)
COMMAND = next(line for line in TEXT.splitlines() if line.startswith("python -m pytest tests/conformance/"))
IN_JAX, IN_TORCH = "jax_vae/models/sphere_ae.py", "torch_vae/models/sphere_ae.py"


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the registry's line, without the pair."""
    for name in ("jax_vae", "torch_vae", "vae_common", "scripts", "tests", "results"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    with open(tmp_path / "vae_common/config/registry.py", "a") as file:
        file.write(LINE)
    return tmp_path


def run(project, *command):
    return subprocess.run([sys.executable, *command], cwd=project, capture_output=True, text=True, check=False)


def write(project, jax=JAX, torch=TORCH):
    (project / IN_JAX).write_text(jax)
    (project / IN_TORCH).write_text(torch)


def test_the_example_is_short():
    assert f"`{IN_JAX}`" in TEXT
    assert f"`{IN_TORCH}`" in TEXT
    assert len(LINE.splitlines()) == 1
    assert max(len(half.splitlines()) for half in (JAX, TORCH)) < 60


def test_the_pair_passes_the_suite_and_a_wrong_half_fails(project):
    suite = [*COMMAND.split()[1:], "-x", "-n", "0", "-p", "no:cacheprovider"]
    write(project)
    right = run(project, *suite)
    assert right.returncode == 0, right.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", right.stdout)[1]) >= 4
    write(project, torch=TORCH.replace("+ 1e-6", "+ 2e-6"))
    wrong = run(project, *(word.replace("test_covering", "test_tiers") for word in suite))
    assert wrong.returncode == 1
    assert "jax against torch" in wrong.stdout or "torch against jax" in wrong.stdout


def test_a_missing_twin_and_a_class_that_is_none(project):
    (project / IN_JAX).write_text(JAX)
    missing = run(project, "-c", "import torch_vae")
    assert "model sphere_ae: received no torch_vae/models/sphere_ae.py, expected the twin" in missing.stderr
    (project / IN_TORCH).write_text("SphereAE = 3\n")
    none = run(project, "-c", "import torch_vae")
    assert "model sphere_ae: received 3 as SphereAE of torch_vae/models/sphere_ae.py" in none.stderr


def test_a_public_surface_that_differs(project):
    write(
        project, torch=TORCH.replace("def encode(self, images, labels=None)", "def encode(self, pictures, labels=None)")
    )
    renamed = run(project, "-m", "scripts.compare", "--models", "sphere_ae", "--check", "lockstep", "--epochs", "1")
    assert renamed.returncode == 2
    (line,) = renamed.stderr.splitlines()
    assert "methods of SphereAE: received encode ['self', 'images'" in line
    assert "expected the same in both halves" in line
    write(project, jax=JAX.replace('heads=("code",)', 'heads=("point",)'))
    layer = run(project, "-m", "scripts.compare", "--models", "sphere_ae", "--check", "lockstep", "--epochs", "1")
    (line,) = layer.stderr.splitlines()
    assert "model sphere_ae: parameters: received encoder.code.bias missing in jax" in line


@pytest.mark.parametrize(
    ("name", "class_name", "latents", "said"),
    [
        ("vae", "Mine", "gaussian", "model name: received 'vae', expected a name that is not registered yet"),
        ("mine", "VAE", "gaussian", "class name: received 'VAE', expected one that no registered model has"),
        ("my-vae", "Mine", "gaussian", "model name: received 'my-vae'"),
        ("mine", "Mine", "discrete", "latents: received 'discrete', expected one of none, gaussian"),
    ],
)
def test_registrations_that_are_refused(name, class_name, latents, said):
    before = dict(MODELS)
    with pytest.raises(InputError, match=said):
        register(name, class_name, latents)
    assert before == MODELS


@pytest.mark.parametrize("model", MODELS)
def test_registered_models_are_twins(model):
    signatures.require_same_signatures(HALVES, small_config(model))
