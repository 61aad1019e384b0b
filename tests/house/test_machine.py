"""How many threads the halves take, and how they wait: decided before either is loaded, the same for both."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT
from vae_common import machine
from vae_common.errors import InputError
from vae_common.runs import trainer


def settled(running, code="", **variables):
    """The variables that a fresh process has once it has settled, where so many others run."""
    program = (
        "import os, json; from vae_common import machine\n"
        f"machine.others_running = lambda: {running}\n"
        f"machine.settle({variables.pop('threads', None)})\n{code}"
        "print(json.dumps(dict(os.environ)))"
    )
    chosen = (*machine.THREADS, *machine.WAITING, *machine.KEPT, "GLIBC_TUNABLES")
    plain = {name: value for name, value in os.environ.items() if name not in chosen}
    how = {"capture_output": True, "text": True, "cwd": ROOT, "env": plain | variables}
    done = subprocess.run([sys.executable, "-c", program], check=True, **how)
    return json.loads(done.stdout.splitlines()[-1])


def test_threads_spin_where_nobody_else_runs_and_sleep_where_somebody_does():
    assert "OMP_WAIT_POLICY" not in settled(0)
    if machine.cores() > 1:
        assert settled(os.cpu_count())["OMP_WAIT_POLICY"] == "PASSIVE"
    assert settled(os.cpu_count(), OMP_WAIT_POLICY="ACTIVE")["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "OMP_WAIT_POLICY" not in settled(os.cpu_count(), GOMP_SPINCOUNT="7")
    assert "OMP_WAIT_POLICY" not in settled(1, OMP_NUM_THREADS="1")  # a single one waits for nobody


@pytest.mark.parametrize("framework", HALVES)
def test_both_halves_take_the_threads_that_are_asked_for(framework):
    code = f"import {framework}_vae; os.environ['FOUND'] = {framework}_vae.environment('cpu')['threads']\n"
    assert settled(0, code, threads=1)["FOUND"] == "1"
    assert settled(0, code, OMP_NUM_THREADS="1")["FOUND"] == "1"  # JAX does not take more than PyTorch
    assert settled(0, code)["FOUND"] == str(machine.cores())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_memory_that_is_given_back_stays_unless_the_user_has_chosen():
    code = (
        "import numpy as np, resource\n"
        "def fill():\n"
        "    arrays = [np.empty(20 << 20, np.uint8) for _ in range(3)]\n"
        "    for array in arrays: array[::4096] = 1\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "fill(); fill(); before = faults(); fill(); fill(); os.environ['FOUND'] = str(faults() - before)\n"
    )
    kept = "machine.keep_memory()\n" + code
    assert int(settled(0, kept)["FOUND"]) < 10
    assert int(settled(0, code, **machine.kept_memory())["FOUND"]) < 10  # from the start
    for chosen in ({"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}):
        assert int(settled(0, kept, **chosen)["FOUND"]) > 20  # 60 MiB twice, in pages of 2 MiB at most


def test_nothing_is_said_of_memory_where_the_c_library_is_another(monkeypatch):
    for name in (*machine.KEPT, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(machine.ctypes, "CDLL", None)  # not even asked
    machine.keep_memory()
    assert machine.kept_memory() == {}


def test_programs_with_pytorch_keep_memory():
    code = "machine.keep_memory = lambda: os.environ.update(FOUND='kept')\nfrom vae_common.backend import load_halves\n"
    assert settled(0, f"{code}load_halves('torch')\n")["FOUND"] == "kept"
    assert "FOUND" not in settled(0, f"{code}load_halves('jax')\n")


@pytest.mark.parametrize("framework", HALVES)
def test_what_a_framework_imports_is_left_alone_by_the_collector(framework):
    code = (
        "import gc\nfrom vae_common.backend import load_halves\n"
        "seen = []; gc.callbacks.append(lambda phase, info: phase == 'start' and seen.append(info))\n"
        "BEFORE\nload_halves(HALF); several = len(seen) > 50\n"
        "os.environ['FOUND'] = f'{gc.isenabled()} {gc.get_freeze_count() > 100_000} {several}'\n"
    ).replace("HALF", repr(framework))
    assert settled(0, code.replace("BEFORE", ""))["FOUND"] == "True True False"
    assert settled(0, code.replace("BEFORE", "gc.disable()"))["FOUND"] == "False True False"  # as it was
    assert settled(0, code.replace("BEFORE", f"import {framework}_vae"))["FOUND"] == "True False True"  # already there


def test_threads_that_there_are_not():
    for asked in (0, machine.cores() + 1):
        with pytest.raises(InputError, match="threads: received"):
            machine.settle(asked)


@pytest.mark.parametrize(("running", "others"), [("1/150", 0), ("4/150", 3), ("0/150", 0), ("what", 0)])
def test_it_is_seen_who_else_runs(running, others, monkeypatch):
    """As the kernel says it; nobody, where it says something else."""
    read = Path.read_text
    line = f"0.1 0.2 0.3 {running} 4711"
    fake = lambda path, **how: line if str(path) == "/proc/loadavg" else read(path, **how)  # noqa: E731
    monkeypatch.setattr(Path, "read_text", fake)
    assert machine.others_running() == others


def test_a_run_says_what_its_processor_can():
    assert set(machine.instructions()) <= set(machine.INSTRUCTIONS)
    assert set(machine.facts()) == {"instructions", "load"}


def test_bfloat16_without_instructions_is_said(half, monkeypatch, capsys):
    """The numbers are the same, so it is not refused; the time is not, so it is said."""
    config = small_config()
    short = replace(config, training=replace(config.training, precision="bfloat16"))
    for has, of, said in ((("avx2",), short, True), (("avx512_bf16",), short, False), (("avx2",), config, False)):
        monkeypatch.setattr(machine, "instructions", lambda has=has: has)
        trainer.notice_of_slow_arithmetic(half, of)
        assert ("no bfloat16 instructions" in capsys.readouterr().err) == said
