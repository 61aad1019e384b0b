"""One file for both halves: bit-exact, refused when damaged or foreign, readable without this code."""

import json

import numpy as np
import pytest
import safetensors.numpy

from tests.configs import small_config
from tests.conftest import HALVES, saved
from vae_common import files
from vae_common.config import NetworkConfig
from vae_common.runs import checkpoints

pytestmark = pytest.mark.quick


def test_through_the_other_half_and_back(half, state, tmp_path):
    (other,) = (h for h in HALVES.values() if h is not half)
    written = saved(half, state, tmp_path / "a")
    read = checkpoints.read(tmp_path / "a")
    there = other.state_from_arrays(read.config, read.arrays)
    saved(other, there, tmp_path / "b")
    back = half.state_from_arrays(read.config, checkpoints.read(tmp_path / "b").arrays)
    assert back.step == there.step == state.step == 10
    final = half.state_to_arrays(back)
    assert final.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        assert final[name].dtype == array.dtype
        np.testing.assert_array_equal(final[name], array)
    assert (read.config, read.framework, read.history) == (state.config, written.framework, [{"epoch": 1}])


def test_moments_are_not_trivial(half, state):
    arrays = half.state_to_arrays(state)
    for prefix in (checkpoints.FIRST, checkpoints.SECOND):
        assert all(np.abs(a).max() > 0 for name, a in arrays.items() if name.startswith(prefix))


def test_step_zero(half, tmp_path):
    state = half.create_state(small_config())
    saved(half, state, tmp_path / "a")
    arrays = checkpoints.read(tmp_path / "a").arrays
    assert arrays[checkpoints.STEP] == 0
    assert half.state_from_arrays(small_config(), arrays).step == 0


def test_step_above_a_thousand(half, state, tmp_path):
    arrays = half.state_to_arrays(state) | {checkpoints.STEP: np.array(123_457, np.int64)}
    for other in HALVES.values():
        arrays = other.state_to_arrays(other.state_from_arrays(state.config, arrays))
        assert arrays[checkpoints.STEP] == 123_457


def test_weights_load_into_pytorch_without_this_code(half, state, tmp_path):
    import safetensors.torch
    import torch

    checkpoints.write_weights(tmp_path / "w", half.to_arrays(state.model))
    tensors = safetensors.torch.load_file(tmp_path / "w")
    encoder = torch.nn.Sequential(torch.nn.Linear(784, 24), torch.nn.ReLU(), torch.nn.Linear(24, 24)).double()
    layers = {name.removeprefix("encoder.hidden."): t for name, t in tensors.items() if "encoder.hidden" in name}
    encoder.load_state_dict({{"0": "0", "1": "2"}[n[0]] + n[1:]: t for n, t in layers.items()})
    model = HALVES["torch"].VAE(state.config).double()
    model.load_state_dict(tensors)
    for name, array in half.to_arrays(state.model).items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), array)


@pytest.mark.parametrize("channels", [(), (3, 2)])
def test_weights_load_into_flax_without_this_code(half, channels, tmp_path):
    """The README's lines, on an NNX module built by its constructor."""
    import safetensors.flax
    from flax import nnx

    state = half.create_state(small_config(network=NetworkConfig(hidden=(24, 24), latent_dim=1, channels=channels)))
    checkpoints.write_weights(tmp_path / "w", half.to_arrays(state.model))
    jax_half = HALVES["jax"]
    with jax_half.precision("float64"):
        model, tensors = jax_half.VAE(state.config), safetensors.flax.load_file(tmp_path / "w")
        path = lambda name: tuple(int(p) if p.isdigit() else p for p in name.replace("weight", "kernel").split("."))  # noqa: E731
        flip = lambda v: v.T if v.ndim < 4 else v.transpose(2, 3, 1, 0)  # noqa: E731
        nnx.update(model, nnx.from_flat_state({path(name): flip(t) for name, t in tensors.items()}))
    for name, array in half.to_arrays(state.model).items():
        np.testing.assert_array_equal(jax_half.to_arrays(model)[name], array)


def test_loading_leaves_the_given_model_alone(half, state):
    before = half.to_arrays(state.model)
    changed = {name: a + 1 for name, a in before.items()}
    loaded = half.load_arrays(state.model, changed, "float64", half.select_device())
    np.testing.assert_array_equal(half.to_arrays(loaded)["encoder.mean.bias"], changed["encoder.mean.bias"])
    np.testing.assert_array_equal(half.to_arrays(state.model)["encoder.mean.bias"], before["encoder.mean.bias"])


def test_a_failed_write_keeps_the_old_file(half, state, tmp_path, monkeypatch):
    path = tmp_path / "a"
    saved(half, state, path)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        saved(half, state, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_header_is_plain_json(half, state, tmp_path):
    saved(half, state, tmp_path / "a")
    with safetensors.safe_open(tmp_path / "a", "numpy") as file:
        header = json.loads(file.metadata()["twin_vae"])
    assert header["config"]["network"]["hidden"] == [24, 24]
    assert header["format_version"] == 2
