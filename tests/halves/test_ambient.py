"""A user's global settings neither change a number nor end a training, and are the user's again behind it."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from tests.configs import small_config
from tests.conftest import HALVES, ROOT
from vae_common.config import DataConfig, LossConfig, NetworkConfig, TrainingConfig
from vae_common.errors import InputError

BACKENDS = torch.backends
JAX_SETTINGS = {
    "jax_transfer_guard": "disallow",
    "jax_disable_jit": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_matmul_precision": "bfloat16",
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_check_tracer_leaks": True,
    "jax_softmax_custom_jvp": True,
    "jax_no_tracing": True,
    "jax_no_execution": True,
    "jax_debug_key_reuse": True,
    "jax_thread_guard": True,
    "jax_legacy_prng_key": "error",
    "jax_enable_checks": True,
    "jax_log_compiles": False,
}


@contextlib.contextmanager
def jax_setting(name):
    before = jax.config.values[name]
    jax.config.update(name, JAX_SETTINGS[name])
    try:
        yield
    finally:
        jax.config.update(name, before)


def switched(switch, on, off):
    @contextlib.contextmanager
    def setting():
        switch(on)
        try:
            yield
        finally:
            switch(off)

    return setting


def precision_of(place, value):
    @contextlib.contextmanager
    def setting():
        before = place.fp32_precision
        place.fp32_precision = value
        try:
            yield
        finally:
            place.fp32_precision = before

    return setting


TORCH_SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "detect_anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "default dtype": switched(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": switched(torch.set_default_device, "meta", None),
    "matmul medium": switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "deterministic": switched(torch.use_deterministic_algorithms, True, False),
    "flush denormal": switched(torch.set_flush_denormal, True, False),
    "all in bf16": precision_of(BACKENDS, "bf16"),
    "oneDNN in bf16": precision_of(BACKENDS.mkldnn, "bf16"),
    "oneDNN products in bf16": precision_of(BACKENDS.mkldnn.matmul, "bf16"),
    "oneDNN convolutions in bf16": precision_of(BACKENDS.mkldnn.conv, "bf16"),
    "CUDA products in tf32": precision_of(BACKENDS.cuda.matmul, "tf32"),
    "cuDNN in tf32": precision_of(BACKENDS.cudnn, "tf32"),
}


def torch_settings():
    """What `precision` touches, as it stands."""

    def asked(read):
        try:
            return read()
        except RuntimeError:  # old and new switches that disagree
            return "disagree"

    places = (BACKENDS, BACKENDS.cudnn, BACKENDS.mkldnn, BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)
    places += (BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn)
    found = [place.fp32_precision for place in places]
    found += [asked(torch.get_float32_matmul_precision), asked(lambda: BACKENDS.cudnn.allow_tf32)]
    found += [torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()]
    return [*found, torch.is_anomaly_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_device()]


def life(half, small):
    """A training of each kind and what is done with it, as one dict of arrays."""
    dense = small_config(dtype="float32", training=TrainingConfig(batch_size=50, epochs=1))
    found = half.state_to_arrays(half.fit(half.create_state(dense), small))
    together = half.stack_states([half.create_state(replace(dense, seed=seed)) for seed in (0, 1)])
    ends = half.unstack_states(half.fit(together, small))
    found |= {f"together.{name}": array for name, array in half.state_to_arrays(ends[1]).items()}
    return {f"dense.{name}": array for name, array in found.items()} | convolutional(half, small)


def convolutional(half, small):
    """Convolutions, native draws, importance weights, labels."""
    config = small_config(
        dtype="float32",
        network=NetworkConfig(channels=(2,), hidden=(8,), latent_dim=2, classes=10),
        loss=LossConfig(objective="dreg", samples=2),
        data=DataConfig(binarization="dynamic"),
        training=TrainingConfig(batch_size=50, epochs=1, randomness="native"),
    )
    images, labels = small.test.images[:5] > 127, small.test.labels[:5]
    state = half.fit(half.create_state(config), small)
    found = half.state_to_arrays(state)
    state = half.state_from_arrays(config, found)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((5, *config.noise_shape)).astype(np.float32)
    state, terms = half.train_step(state, images.astype(np.float32), noise, labels)
    stacked = half.stack_states([half.create_state(replace(config, seed=seed)) for seed in (0, 1)])
    found |= {f"unstacked.{k}": v for k, v in half.to_arrays(half.unstack_states(stacked)[0].model).items()}
    found |= {f"terms.{k}": half.to_numpy(v) for k, v in terms.named().items()}
    found["gradient"] = half.gradients(state, images.astype(np.float32), noise, labels)[0]["encoder.mean.weight"]
    found["mean"] = half.encode(state.model, images, labels).mean
    found["sample"] = half.sample(state.model, 3, labels=labels[:3])
    found["marginal"] = half.log_marginal(state.model, images, config, 20, labels).log_likelihood
    found["evaluated"] = half.evaluate(state.model, images, config, labels).total
    found["lost"] = np.array(half.lost_part(state) is None)
    return found


@pytest.fixture(scope="module")
def usual(small):
    return {name: life(half, small) for name, half in HALVES.items()}


def assert_same(found, usual):
    assert found.keys() == usual.keys()
    for name, array in usual.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("name", JAX_SETTINGS)
def test_jax(name, small, usual):
    with jax_setting(name):
        found = life(HALVES["jax"], small)
        assert jax.config.values[name] == JAX_SETTINGS[name]
    assert_same(found, usual["jax"])


@pytest.mark.parametrize("name", TORCH_SETTINGS)
def test_torch(name, small, usual):
    with TORCH_SETTINGS[name]():
        before = torch_settings()
        found = life(HALVES["torch"], small)
        assert torch_settings() == before
    assert_same(found, usual["torch"])


def test_a_shortened_product_would_show(small, usual):
    """Where the processor has bfloat16 the same settings do change a bare product, so the tests above can fail."""
    a = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    exact = a @ a
    with TORCH_SETTINGS["matmul medium"]():
        shortened = a @ a
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    shortens = torch.__version__ >= (2, 13)  # 2.11 did not on a processor with amx_bf16; between them it is not known
    if shortens and ("amx_bf16" in flags or "avx512_bf16" in flags):
        assert not torch.equal(exact, shortened)
        with HALVES["torch"].precision("float32"), TORCH_SETTINGS["no_grad"]():
            assert torch.equal(a @ a, exact)


@pytest.mark.parametrize(
    ("framework", "name", "value"),
    [
        ("jax", "XLA_FLAGS", "--xla_cpu_enable_fast_math"),
        ("jax", "XLA_FLAGS", "--xla_dump_to=x --xla_cpu_enable_fast_math=true"),
        ("torch", "ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("torch", "DNNL_DEFAULT_FPMATH_MODE", "any"),
    ],
)
def test_what_cannot_be_held_is_refused(framework, name, value, monkeypatch):
    """oneDNN and XLA read these themselves: the arithmetic would be another, whatever is set later."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name}: received"):
        HALVES[framework].create_state(small_config())


def test_versions_and_flags_are_recorded(half, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found = half.environment()
    assert "numpy" in found["versions"]
    assert ("fast_math=false" in found["flags"]) != ("PASSIVE" in found["flags"])


def test_jax_adds_up_right():
    """jax issue 39103: of 16,385 rows jaxlib 0.10.2 gets one wrong, unless it is told not to use its new fusions."""
    matrix = np.random.default_rng(0).normal(size=(3, 3))
    rows = np.random.default_rng(1).normal(size=(32_769, 3))
    with HALVES["jax"].precision("float64"):
        HALVES["jax"].select_device()
        sums = jax.jit(jax.vmap(lambda row: jax.numpy.sum((matrix @ row) ** 2)))
        for count in (16_384, 16_385, 32_769):
            expected = ((rows[:count] @ matrix.T) ** 2).sum(1)
            np.testing.assert_allclose(np.asarray(sums(rows[:count])), expected, rtol=1e-12)


SUBNORMAL = """
import numpy as np, sys, importlib
half = importlib.import_module(sys.argv[1] + "_vae")
from vae_common.config import Config
small = np.full(1 << 20, 1e-40, np.float32)
state = half.create_state(Config())
device = half.device_for(state.config)
with half.precision("float32"):
    inside = half.to_numpy(half.to_device(small, device) * 0.5).view(np.int32)
after = (small[:8] * np.float32(0.5)).view(np.int32)
print(np.count_nonzero(inside), np.count_nonzero(after))
"""


@pytest.mark.parametrize("framework", HALVES)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_subnormal_numbers_are_zeros_in_every_thread(framework, threads):
    """First moments of what has no gradient fade into them, and there a processor takes twenty times as long."""
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SUBNORMAL, framework]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert said.split() == ["0", "8"]  # and outside they are what they were
