"""The JAX half's programs for machines that are not here: exported for three platforms, compiled for TPU chips."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, process
from vae_common.config import Config, DataConfig

jax_vae = HALVES["jax"]
PLATFORMS = ("cpu", "cuda", "tpu")
RECORD = json.loads((ROOT / "results" / "tpu_compile.json").read_text())


@pytest.fixture
def arguments(small):
    """A state, resident images and an epoch's draws."""
    config = small_config(dtype="float32", data=DataConfig(binarization="dynamic"))
    images = jax_vae.place_images(small.train.images, config)
    return jax_vae.create_state(config), images, jax_vae.epoch_draws(config, 0, len(images))


def test_step_and_epoch_are_exported_for_every_platform(arguments):
    """Donation and scan and all; what was exported gives on a CPU what the half itself gives."""
    state, images, draws = arguments
    draw = jax.tree.map(lambda a: a[0], draws)
    execution = jax_vae.execution
    for program, inputs in (
        (execution.jitted_batch_step, (state, images, draw)),
        (execution.jitted_epoch, (state, images, draws)),
    ):
        with jax_vae.precision("float32"):
            exported = jax.export.export(program, platforms=PLATFORMS)(*inputs)
            assert exported.platforms == PLATFORMS
            _, found = exported.call(*inputs)
            _, expected = jax.jit(program.__wrapped__)(*inputs)
        for name, term in expected.named().items():
            np.testing.assert_allclose(found.named()[name], term, rtol=1e-5)


def test_compiled_for_a_sharded_tpu_mesh(tmp_path):
    """One of the record's programs again; the batch is sharded, so each chip has a quarter of the products."""
    libtpu = ROOT / ".libtpu"
    if not (libtpu / "libtpu").is_dir() and importlib.util.find_spec("libtpu") is None:
        pytest.skip(f"libtpu is not installed in {libtpu}: pip install --no-deps --target .libtpu libtpu")
    flags = ("--topologies", "v5e:2x2", "--batch-sizes", 128, "--precisions", "bfloat16", "--libtpu", libtpu)
    programs = process("compile_for_tpu", *flags, cwd=tmp_path)["programs"]
    for program in programs:
        assert program["chips"] == 4
        share = 4 * program["step_of_each_chip"]["flops"] / program["model_flops_of_all_chips"]
        assert 1 < share < 1.2
        assert program["epoch_memory_bytes"]["argument"] > 60_000 * 784
        assert program["roofline"]["microseconds_a_step"] > 0
    data, spread = (program["collectives_of_a_step"] for program in programs)
    parameters = 4 * sum(int(np.prod(shape)) for shape in jax_vae.model_shapes(Config()).values())
    assert set(data) == {"all-reduce"}  # of the gradients, and the terms
    assert 0.5 * parameters <= data["all-reduce"]["bytes"] < 1.01 * parameters  # those of products in bfloat16
    assert spread["all-gather"]["bytes"] > 0
    memory = [program["epoch_memory_bytes"]["argument"] for program in programs]
    assert memory[1] < memory[0] - 2 * parameters  # each chip holds a quarter of weights and moments


def test_the_record_is_whole_and_says_that_nothing_was_run():
    assert RECORD["what"] == "compiled, not run"
    found = {(p["topology"], p["batch_size"], p["precision"]) for p in RECORD["programs"]}
    assert found == {(t, b, p) for t in ("v5e:1x1", "v5e:2x2") for b in (128, 8192) for p in ("float32", "bfloat16")}


def test_without_libtpu(tmp_path):
    if importlib.util.find_spec("libtpu") is not None:
        pytest.skip("libtpu is installed in this environment")
    assert "has no libtpu package" in process("compile_for_tpu", cwd=tmp_path, status=2)
