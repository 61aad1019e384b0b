"""Bad input of any script is one clear line, exit status 2, and nothing half-written."""

import pytest

from tests.conftest import process, script


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("train", ["--epochs", "-1"], "epochs: received -1, expected an integer from 0 to 2147483647"),
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
        ("compare", ["--runs", "nowhere"], "nowhere does not exist"),
        ("compare", ["--seeds", "0", "0"], "seeds: received [0, 0], expected at least one, each once"),
        ("compare", ["--seeds", "-1"], "seed: received -1"),
        ("compare", ["--models"], "models"),
        ("compare", ["--models", "gan"], "invalid choice 'gan'"),
        ("compare", ["--interpolate", "0", "297"], "received 297, expected test images 0 to 296"),
        ("compare", ["--check", "paired"], "received 1 for --check paired, expected at least 2"),
        ("compare", ["--check", "paired", "--seeds", "0", "1", "--randomness", "native"], "expected shared"),
        ("compare", ["--check", "lockstep", "--lockstep-steps", "0"], "lockstep_steps: received 0"),
        ("compare", ["--window", "1", "0", "0", "1"], "expected finite x0 < x1 and y0 < y1"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, name, flags, said):
    assert said in script(name, *flags, cwd=tmp_path, status=2)
    assert not [path for path in tmp_path.rglob("*") if path.name != "data"]


def test_as_a_process(tmp_path, monkeypatch):
    """Also where the output is not UTF-8: what parses the flags frames its explanation otherwise then."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "invalid choice 'gan'" in process("train", "--model", "gan", cwd=tmp_path, status=2)
    said = process("train", "--epochs", "-1", cwd=tmp_path, status=2)
    assert said == "error: epochs: received -1, expected an integer from 0 to 2147483647"
