"""A command that is told to stop saves what it trained, says how to go on, and ends with 128 + the signal, in 5 s."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import HALVES, ROOT
from vae_common.runs import checkpoints

SCRIPT = [sys.executable, "-W", "ignore", "-m"]
QUICK = ("--hidden", "32", "--precision", "float64", "--batch-size", "500")
WITHIN = 5.0


def start(*words, cwd, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(
        [*SCRIPT, *map(str, words)], cwd=cwd, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes | options
    )


def wait_for(happened, seconds=60.0):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def stop(process, number):
    """Its exit status and what it said, and that it took no longer than it may."""
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < WITHIN
    return process.returncode, out, err


def epochs(run):
    log = run / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("framework", HALVES)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_training_is_saved_between_its_checkpoints(tmp_path, framework, name):
    """Its checkpoint is due after a million epochs; what was trained is there all the same, bit for bit."""
    number = getattr(signal, name)
    flags = ("--framework", framework, *QUICK, "--checkpoint-every", 10**6, "--epochs", 10**6, "--output", "r")
    process = start("scripts.train", *flags, cwd=tmp_path)
    wait_for(lambda: epochs(tmp_path / "r") >= 3)
    status, out, err = stop(process, number)
    assert status == 128 + number
    assert not out
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0] == f"error: stopped by {name}; go on with: python -m scripts.train --resume r"
    point = checkpoints.read(tmp_path / "r" / "checkpoint.safetensors")
    assert point.epoch >= 2
    assert point.config.training.epochs == 10**6
    half = HALVES[framework]
    state, images = half.create_state(point.config), half.place_images(digits().train.images, point.config)
    for epoch in range(point.epoch):
        state, _ = half.train_epoch(state, images, half.epoch_draws(point.config, epoch, len(images)))
    for tensor, array in half.state_to_arrays(state).items():
        np.testing.assert_allclose(point.arrays[tensor], array, rtol=1e-9, atol=1e-14)
    assert not list((tmp_path / "r").glob(".*"))


def digits():
    from vae_common.data import datasets

    return datasets.load("digits")


STOPPED = """
import os, signal, sys, threading, time
from vae_common import stopping
from vae_common.data import readers

stopping.install()
signal.signal(signal.SIGUSR1, lambda *_: None)  # a library's own
os.kill(os.getpid(), signal.SIGUSR1)
time.sleep(0.2)
save = {"slow": lambda: time.sleep(60), "fails": lambda: 1 / 0, "none": lambda: None}[sys.argv[1]]
with stopping.saving(save), stopping.mend(lambda: "this"), readers._quiet():
    os.write(1, b"ready\\n")
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("kind", "twice", "said"),
    [
        ("none", False, "stopped by SIGTERM; go on with: this"),
        ("fails", False, "saving failed (division by zero); go on with: this"),
        ("slow", False, "saving took too long"),
        ("slow", True, "stopped by SIGTERM at once"),
    ],
)
def test_a_stop_ends_in_time_whatever_saving_does(kind, twice, said):
    """Also while standard error points elsewhere; another library's signal is left to it."""
    command = [sys.executable, "-c", STOPPED, kind]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    if twice:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < (1.0 if twice else WITHIN)
    assert process.returncode == (130 if twice else 143)
    assert said.replace("SIGTERM at once", "SIGINT at once") in err
    assert len(err.splitlines()) == 1


def test_many_seeds_are_saved_in_time(tmp_path):
    """Sixteen in one program, each into its own folder."""
    flags = ("--models", "vae", "--epochs", 10**6, "--ensemble", "--seeds", *range(16), "--output", "c")
    process = start("scripts.compare", *flags, "--hidden", 256, "--batch-size", 1500, cwd=tmp_path)
    runs = [tmp_path / "c" / "runs" / f"jax-vae-seed{seed}" for seed in range(16)]
    wait_for(lambda: all(epochs(run) >= 2 for run in runs))
    status, _, err = stop(process, signal.SIGTERM)
    assert (status, err) == (143, "error: stopped by SIGTERM; go on with: python -m scripts.compare --resume c\n")
    assert min(checkpoints.read(run / "checkpoint.safetensors").epoch for run in runs) >= 1


@pytest.mark.parametrize("seconds", [0.15, 0.6, 1.5])
def test_interrupted_while_libraries_load(tmp_path, seconds):
    process = start("scripts.train", "--epochs", 10**6, *QUICK, cwd=tmp_path)
    time.sleep(seconds)
    status, _, err = stop(process, signal.SIGINT)
    assert status == 130
    assert len(err.splitlines()) == 1, err
    assert "stopped by SIGINT" in err


def test_a_comparison_says_how_it_goes_on(tmp_path):
    flags = ("--models", "vae", "--epochs", 10**6, "--output", "c c", *QUICK)
    process = start("scripts.compare", *flags, cwd=tmp_path)
    wait_for(lambda: epochs(tmp_path / "c c" / "runs" / "jax-vae-seed0") >= 2)
    status, _, err = stop(process, signal.SIGTERM)
    assert status == 143
    assert err == "error: stopped by SIGTERM; go on with: python -m scripts.compare --resume 'c c'\n"


def test_nohup_is_kept(tmp_path):
    """What was started to survive the end of its terminal survives it."""
    process = start(
        "scripts.train", "--framework", "torch", "--epochs", 10**6, "--output", "r", *QUICK, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    wait_for(lambda: epochs(tmp_path / "r") >= 1)
    process.send_signal(signal.SIGHUP)
    reached = epochs(tmp_path / "r")
    wait_for(lambda: epochs(tmp_path / "r") >= reached + 2)
    assert stop(process, signal.SIGTERM)[0] == 143


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_benchmark_leaves_no_worker(tmp_path, number):
    process = start("scripts.benchmark", "--frameworks", "torch", "--executions", "eager", cwd=tmp_path)

    def workers():
        found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in found.splitlines()[1:]]
        return [
            int(pid)
            for pid, _, words in rows
            if "vae_common.benchmark.worker" in words and words.startswith(sys.executable)
        ]

    def child_of_this(pid):
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) == process.pid
        except (OSError, ValueError):
            return False

    wait_for(lambda: any(map(child_of_this, workers())))
    own = [pid for pid in workers() if child_of_this(pid)]
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    wait_for(lambda: not set(own) & set(workers()), WITHIN)


@pytest.mark.parametrize("stream", ["2>&-", ">&-", ">&- 2>&-"])
def test_closed_streams(tmp_path, stream):
    """The run goes on, and no message lands in a file that got the stream's number."""
    words = "--framework torch --epochs 1 --hidden 8 --output r"
    shell = f"{sys.executable} -W ignore -m scripts.train {words} {stream}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(shell, shell=True, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["epochs"] == 1
    checkpoints.read(tmp_path / "r" / "checkpoint.safetensors")


def test_a_closed_reader_is_no_bad_input(tmp_path):
    words = f"{sys.executable} -W ignore -m scripts.train --framework torch --epochs 0 --hidden 8 --output r"
    shell = f"{words} | true; echo ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", shell]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["141"]
    assert not result.stderr
