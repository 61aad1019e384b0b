"""Where a step's time goes: the same parts in both halves, which add up to the step."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES, script
from vae_common.backend import load_profiling
from vae_common.benchmark import profiling
from vae_common.config import NetworkConfig
from vae_common.errors import InputError
from vae_common.profiles import PARTS, Operation, Profile, in_order, part_of

TRAINED = {part for part in PARTS if part not in ("host", "gather, backward")}


@pytest.mark.parametrize(
    ("functions", "backward", "part"),
    [
        (
            ["affine", "Dense.__call__", "Encoder.__call__", "VAE.encode", "VAE.__call__", "batch_loss"],
            False,
            "encoder",
        ),
        (["affine", "Decoder.__call__", "Autoencoder.decode", "VAE.__call__", "batch_loss"], True, "decoder, backward"),
        (["reparameterize", "VAE.__call__", "batch_loss"], False, "latents"),
        (["KLAutoencoder.encode", "KLAutoencoder.__call__", "batch_loss"], True, "encoder, backward"),
        (["bernoulli", "loss_terms", "batch_loss", "one_step"], True, "loss, backward"),
        (["adam.<locals>.update", "updated", "one_step"], False, "adam"),
        (["prepare_images", "batch_step"], False, "gather"),
        ([], False, "gather"),
    ],
)
def test_parts_by_the_functions_that_they_run_in(functions, backward, part):
    assert part_of(functions, backward) == part
    assert part in PARTS


def profiled(half, config, folder, steps=4):
    images = np.random.default_rng(0).integers(
        0, 256, (steps * config.training.batch_size, *config.image_shape), np.uint8
    )
    return load_profiling(half).profile(config, half.place_images(images, config), folder)


@pytest.mark.parametrize("channels", [(), (4,)])
def test_every_part_of_a_step_is_found(half, channels, tmp_path):
    """In either half, of dense and convolutional networks: forward, backward and Adam; the trace is beside it."""
    config = small_config(network=NetworkConfig(hidden=(64,), latent_dim=8, channels=channels))
    found = profiled(half, config, tmp_path)
    parts = {of.part for of in found.operations}
    assert parts <= set(PARTS)
    assert parts >= {"gather", "encoder", "decoder", "loss", "encoder, backward", "decoder, backward", "adam"}
    assert (tmp_path / found.trace).stat().st_size > 1000
    assert all(of.seconds > 0 and of.calls > 0 for of in found.operations)


def test_products_lie_where_they_are_computed(tmp_path):
    """PyTorch multiplies once for each layer and once for each gradient: counted by part."""
    config = small_config(network=NetworkConfig(hidden=(64,), latent_dim=8))
    found = profiled(HALVES["torch"], config, tmp_path)
    calls = {}
    for of in found.operations:
        if of.name == "aten::mm":
            calls[of.part] = calls.get(of.part, 0) + of.calls
    assert calls == {"encoder": 2, "decoder": 2, "decoder, backward": 4, "encoder, backward": 3}


def test_a_model_is_as_it_was_after_a_profile(tmp_path):
    """Nothing that names its parts stays behind."""
    half, config = HALVES["torch"], small_config()
    before = half.step.batch_loss
    profiled(half, config, tmp_path)
    assert half.step.batch_loss is before


def test_parts_add_up_to_the_step_without_the_profiler():
    """What the profiler added is taken off each call, and the host has what no operation accounts for."""
    operations = [
        Operation("a", "encoder", 3e-3, 1),
        Operation("b", "decoder", 2e-3, 1),
        Operation("c", "adam", 1e-4, 2),
    ]
    found = profiling.corrected(Profile(operations, 8e-3, "trace"), 4e-3, "trace")
    assert sum(found.parts.values()) == pytest.approx(4e-3)
    assert found.parts["encoder"] == pytest.approx(2e-3)
    assert found.parts["decoder"] == pytest.approx(1e-3)
    assert found.parts["adam"] == 0
    assert found.attributed == pytest.approx(0.75)
    slower = profiling.corrected(Profile(operations, 6e-3, "trace"), 12e-3, "trace")  # without the profiler
    assert sum(slower.parts.values()) == pytest.approx(12e-3)
    assert slower.parts["encoder"] == pytest.approx(6e-3)
    assert slower.attributed == pytest.approx(5.1 / 6)
    on_device = profiling.corrected(Profile(operations, 6e-3, "trace", on_device=True), 12e-3, "trace")
    assert on_device.parts["encoder"] == pytest.approx(3e-3)
    exact = profiling.corrected(Profile(operations, 3e-3, "trace"), 3e-3, "trace")  # several at once
    assert exact.parts["host"] == pytest.approx(0, abs=1e-12)
    assert sum(exact.parts.values()) == pytest.approx(3e-3)


def test_a_trace_of_an_accelerator_has_each_operation_once():
    """The host's lines have the launches under the same names, and some devices have lines of both kinds."""

    def plane(name, *lines):
        return SimpleNamespace(name=name, lines=[SimpleNamespace(name=line) for line in lines])

    lines = load_profiling(HALVES["jax"])._lines
    host, gpu = plane("/host:CPU", "python", "launches"), plane("/device:GPU:0", "Stream #14", "XLA Ops", "XLA Modules")
    assert [line.name for line in lines([host, gpu], True)] == ["Stream #14"]
    assert [line.name for line in lines([host, plane("/device:TPU:0", "XLA Ops", "Steps")], True)] == ["XLA Ops"]
    assert [line.name for line in lines([host], False)] == ["launches"]


def test_what_goes_on_after_its_call_is_its_operations_own():
    """Up to its end, or where what waited for it begins: its end is said after that. The rest is the host's."""
    found = load_profiling(HALVES["jax"])
    calls = [(0, 2, "conv"), (10, 12, "add"), (13, 14, "dot"), (30, 31, "add"), (31, 40, "conv"), (33, 60, "add")]
    ends = [(11, "conv"), (12, "add"), (15, "dot"), (31, "add"), (60, "add"), (70, "conv")]
    calls = [found._Call(*call) for call in calls]
    assert found._after_calls(calls, ends) == [("conv", 8), ("dot", 1)]
    assert found._after_calls(calls, []) == []
    assert found._after_calls([*calls, found._Call(80, 90, "dot")], ends)[2:] == [("conv", 10)]


def test_what_a_graph_runs_is_told_by_its_order():
    """Steps run one by one say what belongs where; other kernels before and after do not mislead."""
    launched = [("fill", "gather"), ("copy", "gather"), *[("mm", "encoder"), ("mm", "decoder"), ("adam", "adam")] * 3]
    ran = [("copy", 5.0), *[("mm", 1.0), ("mm", 2.0), ("adam", 3.0)] * 3, ("clone", 9.0)]
    expected = [("mm", "encoder", 1.0), ("mm", "decoder", 2.0), ("adam", "adam", 3.0)] * 3
    assert in_order(launched, ran, 3) == expected
    assert in_order(launched, [*ran[:4], ("mm", 1.0), ("other", 2.0), *ran[6:]], 3) is None
    assert in_order(launched, [("fused", 1.0)] * 9, 3) is None


def test_the_command(tmp_path):
    """A record, a figure and both frameworks' traces; the sentence says what differs most."""
    flags = ("--hidden", 16, "--steps", 3, "--batch-size", 32)
    printed = script("profile", *flags, "--output", "found", cwd=tmp_path)
    record = json.loads((tmp_path / "found" / "profile.json").read_text())
    assert set(printed["parts"]) == {"jax", "torch"}
    for of in record["halves"].values():
        assert list(of["parts"]) == list(PARTS)
        assert sum(of["parts"].values()) == pytest.approx(of["seconds"], rel=1e-6)
        assert (tmp_path / "found" / of["trace"]).exists()
    assert (tmp_path / "found" / "profile.png").exists()
    assert "ms more in" in printed["found"]


def test_what_cannot_be_profiled(half, tmp_path):
    config = small_config()
    mode = "eager" if half is HALVES["jax"] else "compile"
    training = dataclasses.replace(config.training, execution=mode)
    with pytest.raises(InputError, match=f"execution: received {mode}"):
        profiled(half, dataclasses.replace(config, training=training), tmp_path)
    assert "classes: received" in script("profile", "--classes", 10, cwd=tmp_path, status=2)
