"""Many processes, one experiment: 1, 2 and 4 of them, batches or parameters spread, in either half."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from tests.conftest import AS_HERE, HALVES, ROOT
from tests.halves import shared_training as shared
from vae_common import worlds
from vae_common.conformance.engine.checks import difference
from vae_common.errors import InputError

WITHIN = 1e-12
BOTH = ("data", "data+parameters")


def processes(command, count, cwd=ROOT, start=None, **variables):
    """As many processes of one world as torchrun would start, or some of them."""
    port = worlds.free_port()
    found = []
    for rank in range(count) if start is None else start:
        environment = os.environ | worlds.of_this_machine(rank, count, port) | variables
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, "cwd": cwd}
        found.append(subprocess.Popen([sys.executable, "-m", *command], **how))
    return found


def world(folder, framework, count, cases, resumed=""):
    """Runs the cases in a world, and returns what came out of each."""
    command = ["tests.halves.shared_training", framework, str(folder), ";".join(cases), str(resumed)]
    started = processes(command, count, **AS_HERE)
    ended = [process.communicate(timeout=240) for process in started]
    assert not any(process.returncode for process in started), [error[-2000:] for _, error in ended]
    names = [*cases, *["resumed"] * bool(resumed)]
    return {case: dict(np.load(folder / f"{framework}-{count}-{case}.npz")) for case in names}


@pytest.fixture(scope="module")
def alone():
    """Each case on one device, in the JAX half."""
    return {
        case: shared.trained(HALVES["jax"], shared.config_of(case)) for case in shared.CONFIGS if case != "residual"
    }


def assert_equal(found, expected):
    apart = {name: difference(array, expected[name]) for name, array in found.items()}
    worst = max(apart, key=apart.get)
    assert apart[worst] < WITHIN, (worst, apart[worst])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def of_two(folder, alone):
    """Both halves' worlds of two processes: everything that is defined on the global batch, and the faults."""
    cases = [f"plain@{sharding}" for sharding in BOTH]
    cases += [f"{case}@data" for case in alone if case != "plain"]
    cases += ["codes@data+parameters", *(f"plain@{fault}" for fault in shared.FAULTS)]
    # Of JAX the compiler makes all sums global, whatever they are of: fewer cases, each of which it compiles anew.
    own = {"jax": [case for case in cases if case.split("@")[0] in ("plain", "codes", "stream")]}
    own["torch"] = [*cases, *(f"residual@{sharding}" for sharding in BOTH)]
    return {framework: world(folder, framework, 2, own[framework]) for framework in HALVES}


@pytest.mark.parametrize("framework", HALVES)
def test_two_processes_are_one_device(framework, of_two, alone):
    """Weights, moments, average, every step's terms and the evaluation, in a batch of 127, clipped and scheduled.

    Of a stream each process reads its own images alone.
    """
    for case, found in of_two[framework].items():
        name, _, what = case.partition("@")
        if what not in shared.FAULTS and name != "residual":
            assert_equal(found, alone[name])


@pytest.mark.parametrize("framework", HALVES)
@pytest.mark.parametrize("fault", shared.FAULTS)
def test_a_fault_is_noticed(framework, fault, of_two, alone):
    with pytest.raises(AssertionError, match=r"\('.*', 0\.\d+\)"):
        assert_equal(of_two[framework][f"plain@{fault}"], alone["plain"])


@pytest.mark.parametrize("framework", HALVES)
def test_four_processes_and_a_run_that_goes_on_elsewhere(framework, folder, of_two, alone):
    """Two epochs in two processes, saved; the third one in four, parameters spread, of the other half."""
    (other,) = set(HALVES) - {framework}
    resumed = folder / f"{other}-2-plain@data+parameters.npz"
    state = {name: array for name, array in np.load(resumed).items() if not name.startswith(("term", "evaluated"))}
    np.savez(folder / f"{framework}-given.npz", **state)
    cases = [*(f"plain@{sharding}" for sharding in BOTH), "stream@data"]
    found = world(folder, framework, 4, cases, folder / f"{framework}-given.npz")
    for case in cases:
        assert_equal(found[case], alone[case.partition("@")[0]])
    half, config = HALVES["torch"], shared.config_of("plain")
    expected = shared.trained(half, config, epochs=3)
    compared = {name: array for name, array in found["resumed"].items() if not name.startswith("term")}
    assert_equal(compared, expected)


def test_residual_blocks_that_are_gathered_one_by_one(of_two):
    """Where `fully_shard` holds each block by itself, and one parameter is never moved."""
    expected = shared.trained(HALVES["torch"], shared.config_of("residual"))
    for sharding in BOTH:
        assert_equal(of_two["torch"][f"residual@{sharding}"], expected)


TRAIN = ["vae_common.cli", "train", "--hidden", "16", "--precision", "float64"]


@pytest.mark.parametrize("framework", HALVES)
def test_a_process_that_is_killed_ends_all(framework, tmp_path):
    """At once, with a line that says how to go on; the run then goes on in one process, of the other half."""
    command = [*TRAIN, "--framework", framework, "--epochs", "5000", "--output", "run"]
    first, second = processes(command, 2, tmp_path)
    records = tmp_path / "run" / "metrics.jsonl"
    until = time.monotonic() + 90
    while time.monotonic() < until and (not records.exists() or records.stat().st_size < 2000):
        time.sleep(0.1)
    second.kill()
    start = time.monotonic()
    _, said = first.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert first.returncode == 1
    (line,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert "world: process 0 of 2 lost another" in line
    assert "train --resume run" in line
    done = len(records.read_text().splitlines())
    (other,) = set(HALVES) - {framework}
    flags = ["--resume", "run", "--framework", other, "--epochs", str(done + 1)]
    (alone,) = processes(["vae_common.cli", "train", *flags], 1, tmp_path)
    out, said = alone.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["epochs"] == done + 1, said


@pytest.mark.parametrize(("framework", "rank"), [("jax", 0), ("jax", 1), ("torch", 0), ("torch", 1)])
def test_a_world_that_is_not_whole_is_refused(framework, rank, tmp_path):
    command = [*TRAIN, "--framework", framework, "--epochs", "1", "--output", "run"]
    (process,) = processes(command, 2, tmp_path, [rank], TWIN_VAE_TIMEOUT="2")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert not (tmp_path / "run").exists()
    (line,) = said.splitlines()
    assert line.startswith(f"error: world: process {rank} of 2 waited 2 s at localhost:")
    assert "start all 2, with one address and port, or wait longer: TWIN_VAE_TIMEOUT" in line


def test_ranks_that_cannot_be():
    for variables, said in (
        ({"WORLD_SIZE": "2", "RANK": "2"}, "received RANK 2 with WORLD_SIZE 2, expected a rank from 0 to 1"),
        ({"WORLD_SIZE": "2"}, "received RANK None with WORLD_SIZE 2"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE: received 'two', expected a number"),
        ({"WORLD_SIZE": "2", "RANK": "0", "TWIN_VAE_TIMEOUT": "soon"}, "TWIN_VAE_TIMEOUT: received 'soon'"),
    ):
        with pytest.raises(InputError, match=said):
            worlds.from_environment(variables)


def test_two_processes_on_one_accelerator_are_refused():
    worlds.require_own_devices(["here 1", "here 2", "there 1"])
    with pytest.raises(InputError, match=r"devices: processes 0 and 2 both have '?here 1'?, expected one for each"):
        worlds.require_own_devices(["here 1", "there 1", "here 1"])
    worlds.require_own_devices(["", "", ""])


def test_a_gpu_is_named_before_jax_looks_for_it(monkeypatch):
    """As the driver does, by the place among those that are there; none where JAX would take none."""

    class Driver:
        def cuInit(self, flags):
            return 0

        def cuDeviceGetCount(self, count):
            count._obj.value = 2
            return 0

        def cuDeviceGetUuid(self, uuid, place):
            uuid[0] = place
            return 0

    distributed = HALVES["jax"].distributed
    monkeypatch.setattr(distributed.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert distributed._gpu(0) == ""  # a JAX without CUDA
    monkeypatch.setattr(distributed, "entry_points", lambda group: [SimpleNamespace(name="xla_cuda13")])
    named = [distributed._gpu(place) for place in range(3)]
    assert named[0] == named[2] != named[1]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert distributed._gpu(0) == ""


@pytest.mark.parametrize("shared", [False, True])
def test_processes_that_meet_say_what_they_run_on(shared):
    """Each of them learns of it where two have the same, before a framework waits for what cannot come."""
    port, devices = worlds.free_port(), ["here 1", "here 2", "here 1" if shared else "there 1"]

    def meet(rank):
        try:
            worlds.meet(worlds.World(rank, 3, rank, port=port, timeout=20), port, devices[rank])
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(meet, range(3)))
    expected = "devices: processes 0 and 2 both have 'here 1', expected one for each" if shared else ""
    assert [text.partition(";")[0] for text in said] == [expected] * 3


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\n", b"0 \n", b"7 \n"])
def test_a_stranger_at_the_port_holds_nobody_up(said, monkeypatch):
    """One who says nothing, or what no process of this world does, is let go of; the world meets all the same."""
    monkeypatch.setattr(worlds, "_PATIENCE", 0.2)
    port = worlds.free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(worlds.meet, worlds.World(0, 2, 0, port=port, timeout=20), port)
        until = time.monotonic() + 10
        while True:
            try:
                stranger = socket.create_connection(("localhost", port), timeout=10)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until
        stranger.sendall(said)
        assert stranger.recv(1) == b""
        stranger.close()
        pool.submit(worlds.meet, worlds.World(1, 2, 1, port=port, timeout=20), port).result()
        first.result()


def test_what_slurm_says():
    """One of four tasks on machines that are listed in short."""
    variables = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    found = worlds.from_environment(variables | {"SLURM_STEP_NODELIST": "gpu[007-008,12],login"})
    assert found == worlds.World(3, 4, 1, "gpu007")
    batch_script = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}  # one process, whatever its steps will have
    assert worlds.from_environment(batch_script) == worlds.World()
    assert worlds.from_environment({}) == worlds.World()


@pytest.mark.parametrize(("count", "size"), [(127, 2), (127, 4), (3, 4), (8, 4), (0, 2)])
def test_parts_are_all_there_is(count, size):
    parts = [worlds.part_of(count, rank, size) for rank in range(size)]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("framework", HALVES)
def test_the_devices_of_one_machine(framework, tmp_path):
    """JAX cuts a CPU into two and drives both, PyTorch starts two processes; either is the run of one device."""
    for output, more in (("shared", ["--devices", "2", "--sharding", "data+parameters"]), ("alone", [])):
        command = [*TRAIN, "--framework", framework, "--epochs", "1", "--output", output, *more]
        (process,) = processes(command, 1, tmp_path)
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert json.loads(out.splitlines()[-1])["epochs"] == 1
    assert json.loads((tmp_path / "shared" / "summary.json").read_text())["environment"]["shared"].startswith(
        "2 devices"
    )
    runs = [safetensors.numpy.load_file(tmp_path / run / "weights.safetensors") for run in ("shared", "alone")]
    assert_equal(*runs)


def test_the_devices_of_one_process_share_a_stream(tmp_path):
    """Each of JAX's two is given its part of a batch of 127, and the run is that of one device."""
    pytest.importorskip("grain", reason="grain is not installed")
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("test", 51)):
        np.save(tmp_path / f"{split}_images.npy", rng.integers(0, 256, (count, 7, 6), np.uint8))
    flags = ["--framework", "jax", "--dataset", ".", "--stream", "--randomness", "counter", "--batch-size", "127"]
    for output, devices in (("shared", "2"), ("alone", "1")):
        more = ["--epochs", "2", "--output", output, "--devices", devices]
        (process,) = processes([*TRAIN, *flags, *more], 1, tmp_path)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    ran_on = json.loads((tmp_path / "shared" / "summary.json").read_text())["environment"]["shared"]
    assert ran_on.startswith("2 devices")
    assert_equal(*(safetensors.numpy.load_file(tmp_path / run / "weights.safetensors") for run in ("shared", "alone")))


def test_what_several_devices_do_not_take(monkeypatch):
    half, config = HALVES["torch"], shared.config_of("plain")
    compiled = replace(config, training=replace(config.training, execution="compile"))
    half.distributed.require_shareable(compiled)
    monkeypatch.setattr(half.distributed, "devices", lambda: 2)
    half.distributed.require_shareable(config)
    with pytest.raises(InputError, match="received 'compile on 2 devices', expected auto or eager"):
        half.distributed.require_shareable(compiled)
