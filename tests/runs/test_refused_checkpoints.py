"""Checkpoints that are damaged, foreign or no training state: refused in one line, all faults at once."""

import json

import numpy as np
import pytest
import safetensors.numpy

from tests.configs import small_config
from tests.conftest import saved
from vae_common.errors import InputError
from vae_common.runs import checkpoints

pytestmark = pytest.mark.quick

HEADER = {
    "format_version": 2, "config": small_config().to_json(), "framework": "jax", "epoch": 0, "history": [], "data": "",
}  # fmt: skip


def test_every_misfit_is_listed_at_once(half, state):
    arrays = half.to_arrays(state.model)
    arrays["extra"] = arrays.pop("encoder.mean.bias")
    arrays["decoder.logits.weight"] = arrays["decoder.logits.weight"].T
    with pytest.raises(InputError) as error:
        half.load_arrays(half.create_model(state.config), arrays, "float64", half.select_device())
    for part in ("encoder.mean.bias missing", "extra not in the model", "(24, 784), expected (784, 24)"):
        assert part in str(error.value)


def test_damage_is_found(half, state, tmp_path):
    path = tmp_path / "a"
    saved(half, state, path)
    whole = path.read_bytes()
    flips = []
    for place in (20, 150, 700, -1000):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        flips.append(bytes(flipped))
    for damaged in (whole[:-10], b"", b"not a checkpoint", *flips):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            checkpoints.read(path)
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    with pytest.raises(InputError, match="no twin_vae header"):
        checkpoints.read(path)
    with pytest.raises(InputError, match="does not exist"):
        checkpoints.read(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "header that no run wrote"),
        ("[]", "header that no run wrote"),
        ("null", "header that no run wrote"),
        (json.dumps({k: v for k, v in HEADER.items() if k != "config"}), "header that no run wrote"),
        (json.dumps(HEADER | {"extra": 1}), "header that no run wrote"),
        (json.dumps(HEADER | {"framework": "foo"}), "header that no run wrote"),
        (json.dumps(HEADER | {"history": None}), "header that no run wrote"),
        (json.dumps(HEADER | {"epoch": "two"}), "header that no run wrote"),
        (json.dumps(HEADER | {"epoch": 1}), "header that no run wrote"),
        (json.dumps(HEADER | {"config": {"modle": "vae"}}), "unknown keys modle"),
        (json.dumps(HEADER | {"format_version": 1}), "format version 1, expected 2"),
    ],
)
def test_a_header_that_no_run_wrote(tmp_path, text, said):
    """Whole by its digest, and still not one of ours."""
    arrays = {"a": np.zeros(3)}
    metadata = {"twin_vae": text, "sha256": checkpoints._digest(text, arrays)}
    (tmp_path / "a").write_bytes(safetensors.numpy.save(arrays, metadata))
    with pytest.raises(InputError, match=said):
        checkpoints.read(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder.mean.bias": np.zeros(1, np.float16)}, "encoder.mean.bias is float16, expected float64"),
        ({"encoder.mean.bias": np.zeros(1, np.int32)}, "encoder.mean.bias is int32, expected float64"),
        ({"encoder.mean.bias": np.array([np.nan])}, "encoder.mean.bias hold NaN"),
        ({"adam.first.encoder.mean.bias": np.zeros(2)}, r"adam.first.encoder.mean.bias is \(2,\), expected \(1,\)"),
        ({"adam.third.encoder.mean.bias": np.zeros(1)}, "adam.third.encoder.mean.bias not in the model"),
        ({"adam.step": None}, "weights only"),
        ({"adam.step": np.array([2, 2])}, "expected one integer from 0"),
        ({"adam.step": np.array(np.nan)}, "expected one integer from 0"),
        ({"adam.step": np.array(-5)}, "expected one integer from 0"),
        ({"adam.step": np.array(2**40)}, "expected one integer from 0"),
    ],
)
def test_a_state_that_is_none(half, state, changes, said):
    arrays = {name: a for name, a in (half.state_to_arrays(state) | changes).items() if a is not None}
    with pytest.raises(InputError, match=said):
        half.state_from_arrays(state.config, arrays)


def test_unknown_format_version(half, state, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 99)
    saved(half, state, tmp_path / "a")
    monkeypatch.undo()
    with pytest.raises(InputError, match="format version 99, expected 2"):
        checkpoints.read(tmp_path / "a")
