"""A run that is killed before any of its system calls on files goes on to the same weights, or its folder can be used.

Python announces each such call before it makes it (PEP 578). At every one, in a run's life from its folder to its
summary and through an extension, the folder is copied as kill -9 would leave it, and once more with the file that is
being written torn in the middle. Every different copy is then gone on with.
"""

import json
import subprocess
import sys

import pytest

from tests.conftest import HALVES, ROOT

LIFE = """
import importlib, json, os, pathlib, shutil, sys
from dataclasses import replace
import numpy as np
from tests.configs import small_config
from vae_common.data import datasets
from vae_common.data.splits import Split
from vae_common.runs import checkpoints, folder as runs, trainer

half, root = importlib.import_module(sys.argv[1] + "_vae"), pathlib.Path(sys.argv[2])
EPOCHS, LONGER = 2, 3
config = small_config()
digits = datasets.load("digits")
small = replace(
    digits,
    train=Split(digits.train.images[:200], digits.train.labels[:200]),
    test=Split(digits.test.images[:50], digits.test.labels[:50]),
)
folder, copies, seen, calls = root / "run", root / "copies", set(), []
watched = False

def with_epochs(epochs):
    return replace(config, training=replace(config.training, epochs=epochs))

def keep(event, arguments):
    global watched
    if not watched or not any(str(folder) in str(argument) for argument in arguments):
        return
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod"):
        return
    watched = False  # what copying does is not the run's
    calls.append(event)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    torn = {name: data[: len(data) // 2] for name, data in files.items() if name.endswith(".part")}
    log = files.get("metrics.jsonl", b"")
    torn |= {"metrics.jsonl": log[:-7]} if log else {}
    for state in [files, *({**files, name: data} for name, data in torn.items())]:
        key = tuple(sorted((name.rpartition(".part")[1] or name, data) for name, data in state.items()))
        if key not in seen:
            seen.add(key)
            (copy := copies / f"{len(seen):03}").mkdir(parents=True)
            for name, data in state.items():
                (copy / name).write_bytes(data)
    watched = True

def live(place, epochs, point=None):
    trainer.train(half, with_epochs(epochs), small, place, resume=point)

def weights(place):
    return checkpoints.read(place / "checkpoint.safetensors").arrays

sys.addaudithook(keep)
folder.mkdir()
watched = True
live(folder, EPOCHS)
begun = len(seen)
live(folder, LONGER, runs.Run(folder).resume_point())
watched = False
whole = {}
for epochs in (EPOCHS, LONGER):
    (place := root / f"whole{epochs}").mkdir()
    live(place, epochs)
    whole[epochs] = weights(place)
found = {"calls": len(calls), "states": len(seen), "used again": 0, "resumed": 0, "extended": 0}
for number, copy in enumerate(sorted(copies.iterdir())):
    if runs.Run(copy).is_begun:
        point = runs.Run(copy).resume_point()
        epochs = point.config.training.epochs
        found["extended"] += epochs == LONGER
        assert number < begun or runs.Run(copy).is_finished or epochs == LONGER, copy  # the extension is remembered
        live(copy, epochs, point)
        found["resumed"] += 1
    else:
        assert runs.new_folder(copy, "x") == copy
        epochs = EPOCHS
        live(copy, epochs)
        found["used again"] += 1
    for name, array in whole[epochs].items():
        np.testing.assert_array_equal(weights(copy)[name], array, err_msg=f"{copy} {name}")
    assert runs.Run(copy).is_finished
    lines = [json.loads(line)["epoch"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, epochs + 1)), copy
    names = {path.name for path in copy.iterdir()}
    assert names == {path.name for path in (root / f"whole{epochs}").iterdir()}, names
print(json.dumps(found))
"""


@pytest.mark.parametrize("framework", HALVES)
def test_killed_before_any_system_call(tmp_path, framework):
    command = [sys.executable, "-W", "ignore", "-c", LIFE, framework, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["calls"] >= 25, found
    assert found["states"] >= 40, found
    assert min(found["used again"], found["extended"]) >= 2, found
