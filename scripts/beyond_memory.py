"""Trains on a set that the memory does not hold, in processes that may not hold it, beside the same images in memory.

python -m scripts.beyond_memory --frameworks jax --output results/beyond-memory-jax.json

A set of 64x64x3 images is generated under --folder, once. In each half the first --held gigabytes of it are trained on
in memory and streamed, by turns, then all of it is streamed for an epoch. What streams runs in a control group of
--limit mebibytes, which counts the pages of the file that the system keeps, too; these are dropped before each run.
Both take root. Images a second are the training's own, as in every record: an epoch's steps and what they waited for,
but for the first chunk of a stream and the loading of images into memory.

With --kill the whole set is trained on to the end, and again, killed (-9) in the middle of the epoch and gone on with
from the last checkpoint, in one process and in two, each in a group of its own. Weights and evaluations are compared.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from vae_common import files, stopping, worlds
from vae_common.backend import Framework, load_halves
from vae_common.cli.command_line import run_command
from vae_common.config import Config
from vae_common.conformance.engine.checks import difference
from vae_common.errors import InputError, require
from vae_common.progress import Progress
from vae_common.randomness import steps_per_epoch
from vae_common.runs.folder import Run

SHAPE = (64, 64, 3)
TESTED = 1000
BLOCK = 4096
"""Images that are generated at a time."""
GROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
)
"""Of both versions of control groups: where they lie, what limits the memory, and what says how much was used."""


@dataclass(frozen=True)
class Arguments:
    """Training on a set that no memory holds."""

    gigabytes: float = 20.0
    """The set's size, in 10^9 bytes."""
    held: float = 1.5
    """Gigabytes of it that are trained on in memory, too."""
    limit: int = 2048
    """Mebibytes that a process which streams may take."""
    rounds: int = 3
    """Trainings in memory and of the stream, by turns."""
    hidden: int = 64
    block: int = 64
    """Images that lie beside each other and are read at once, in memory in the same order."""
    kill: bool = False
    """Kill trainings of all of it, and compare what goes on with one that was not."""
    frameworks: tuple[Framework, ...] = ("jax", "torch")
    folder: Path = Path("data/beyond-memory")
    """Where the set is made, and the runs."""
    output: Path | None = None
    """A JSON file for the record."""


@dataclass(frozen=True)
class Training:
    """One training of an epoch."""

    images_per_second: float
    peak_bytes: int
    """The process's largest resident set."""
    group_bytes: int | None
    """What its group held at most, the file's pages among it; None where it was in none."""
    test: dict[str, float]


def make_set(folder: Path, count: int, name: str) -> Path:
    """Generates a set of that many images, blocks of random colours, unless it is there; its folder."""
    path = folder / name / "train_images.npy"
    if path.is_file() and np.load(path, mmap_mode="r").shape == (count, *SHAPE):
        return path.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(folder).free > count * math.prod(SHAPE)
    require(room, "folder", str(folder), "one with room for the set")
    for split, images, seed in (("test", TESTED, 1), ("train", count, 0)):
        target = path.with_name(f"{split}_images.npy")
        part = target.with_suffix(".part")
        np.lib.format.open_memmap(part, "w+", np.uint8, (images, *SHAPE)).flush()
        rng = np.random.default_rng(seed)
        with Progress(f"making {target}", images, "image") as progress:
            for first in range(0, images, BLOCK):
                size = min(BLOCK, images - first)
                # Mapped anew each time: what this process held at most counts as what a training did that it starts.
                array = np.lib.format.open_memmap(part, "r+")
                array[first : first + size] = rng.integers(0, 256, (size, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
                del array
                progress.update(size)
        os.replace(part, target)
    return path.parent


@contextmanager
def limited(mebibytes: int, name: str = "") -> Iterator[tuple[Path, Path]]:
    """A control group of that much memory: the file that takes its processes, and the one that says what they used."""
    for root, limit, used in GROUPS:
        group = root / f"twin-vae-{os.getpid()}{name}"
        if not (root / "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError as error:
            raise InputError(f"limit: {root} takes no group ({error}); expected to be root") from error
        try:
            if not (group / limit).exists():
                raise InputError(f"limit: groups of {root} have no {limit}; expected the memory controller there")
            files.tell_system(group / limit, str(mebibytes << 20))
            yield group / "cgroup.procs", group / used
        finally:
            group.rmdir()
        return
    raise InputError("limit: there are no control groups of memory here; expected Linux")


def train(framework: str, dataset: Path, output: Path, flags: list[str], limit: int = 0) -> Training:
    """One training in a process of its own; streamed, without the system's pages, under a limit where there is one."""
    shutil.rmtree(output, ignore_errors=True)
    command = _command(framework, dataset, output, flags)
    os.sync()
    files.tell_system(Path("/proc/sys/vm/drop_caches"), "3")
    if not limit:
        return _trained(command, output, None)
    with limited(limit) as (takes, used):
        return _trained(_inside(takes, [*command, "--stream"]), output, used)


def _command(framework: str, dataset: Path, output: Path, flags: list[str]) -> list[str]:
    command = [sys.executable, "-m", "scripts.train", "--framework", framework, "--dataset", str(dataset), *flags]
    return [*command, "--epochs", "1", "--randomness", "counter", "--output", str(output)]


def _flags(arguments: Arguments) -> list[str]:
    return ["--hidden", str(arguments.hidden), "--latent-dim", "16", "--block", str(arguments.block)]


def _inside(takes: Path, command: list[str]) -> list[str]:
    """A command that is run in the group whose processes that file takes."""
    return ["sh", "-c", f'echo $$ > "{takes}" && exec "$@"', "sh", *command]


def _trained(command: list[str], output: Path, used: Path | None) -> Training:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with stopping.saving(process.kill):
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    require(process.returncode == 0, "training", process.returncode, "0; see above what it says")
    record = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
    held = None if used is None else int(used.read_text())
    return Training(record["images_per_second"], usage.ru_maxrss * 1024, held, record["test"])


def measure(framework: str, arguments: Arguments, part: Path, whole: Path) -> dict[str, Any]:
    """What a half did in memory and streamed, and of the whole set."""
    flags = _flags(arguments)
    runs = arguments.folder / "runs"
    found: dict[str, list[Training]] = {"in memory": [], "streamed": []}
    for _ in range(arguments.rounds):
        for way, trainings in found.items():
            limit = arguments.limit if way == "streamed" else 0
            trainings.append(train(framework, part, runs / framework, flags, limit))
            print(f"{framework}, {way}: {trainings[-1]}", file=sys.stderr, flush=True)
    ratios = [b.images_per_second / a.images_per_second for a, b in zip(*found.values())]
    all_of_it = train(framework, whole, runs / framework, flags, arguments.limit)
    print(f"{framework}, all of it: {all_of_it}", file=sys.stderr, flush=True)
    return {
        **{way: [vars(training) for training in trainings] for way, trainings in found.items()},
        "streamed_over_in_memory": {"median": statistics.median(ratios), "each": ratios},
        "all_of_it": vars(all_of_it),
    }


def kill(framework: str, arguments: Arguments, whole: Path) -> dict[str, Any]:
    """How far from a training of an epoch those are that went on after another was killed in the middle of it."""
    runs = {name: arguments.folder / "runs" / f"{framework}-{name}" for name in ("whole", "killed", "two")}
    train(framework, whole, runs["whole"], _flags(arguments), arguments.limit)
    steps = steps_per_epoch(len(np.load(whole / "train_images.npy", mmap_mode="r")), Config().training.batch_size)
    for folder in (runs["killed"], runs["two"]):
        shutil.rmtree(folder, ignore_errors=True)
    within = ["--stream", "--checkpoint-steps", str(max(1, steps // 20))]
    begun = _command(framework, whole, runs["killed"], [*_flags(arguments), *within])
    with limited(arguments.limit) as (takes, _):
        doomed, done = subprocess.Popen(_inside(takes, begun), stdout=subprocess.DEVNULL), 0
        with stopping.saving(doomed.kill):
            while done < steps / 2 and doomed.poll() is None:
                time.sleep(0.2)
                done = _done(runs["killed"])
        require(
            doomed.poll() is None, "training", doomed.returncode, "one that runs until it is killed: a longer epoch"
        )
        doomed.kill()
        require(doomed.wait() == -signal.SIGKILL, "kill", doomed.returncode, "its end")
    shutil.copytree(runs["killed"], runs["two"])
    print(f"{framework}: killed after {done} of {steps} steps", file=sys.stderr, flush=True)
    for name, processes in (("killed", 1), ("two", 2)):
        resume = [sys.executable, "-m", "scripts.train", "--resume", str(runs[name])]
        _resume(resume, processes, arguments.limit)
    weights = {name: safetensors.numpy.load_file(folder / "weights.safetensors") for name, folder in runs.items()}
    apart = {
        name: max(difference(array, weights[name][part]) for part, array in weights["whole"].items())
        for name in ("killed", "two")
    }
    tests = {name: json.loads((of / "metrics.jsonl").read_text().splitlines()[-1])["test"] for name, of in runs.items()}
    found = {"one_process_apart": apart["killed"], "two_apart": apart["two"], "test": tests}
    return {"steps": steps, "killed_after": done, **found}


def _done(folder: Path) -> int:
    """Steps of the first epoch that a run's last checkpoint has behind it."""
    try:
        terms = Run(folder).resume_point().terms
    except InputError:  # there is none yet
        return 0
    return 0 if terms is None else len(terms.total)


def _resume(command: list[str], processes: int, limit: int) -> None:
    """Lets a run go on in so many processes, each in a group of its own."""
    port = worlds.free_port()
    with ExitStack() as stack:
        started = []
        for rank in range(processes):
            takes, _ = stack.enter_context(limited(limit, f"-{rank}"))
            own = worlds.of_this_machine(rank, processes, port) if processes > 1 else {}
            started.append(subprocess.Popen(_inside(takes, command), stdout=subprocess.DEVNULL, env=os.environ | own))
            stack.enter_context(stopping.saving(started[-1].kill))
        ended = [process.wait() for process in started]
    require(not any(ended), "training", ended, "0 of each; see above what it says")


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    require(0 < arguments.held <= arguments.gigabytes, "held", arguments.held, "above 0, and at most the gigabytes")
    sizes = (arguments.held, arguments.gigabytes)
    counts = [round(size * 1e9 / math.prod(SHAPE)) for size in sizes]
    whole = make_set(arguments.folder, counts[1], "whole")
    found: dict[str, Any]
    if arguments.kill:
        found = {name: kill(name, arguments, whole) for name in arguments.frameworks}
    else:
        part = make_set(arguments.folder, counts[0], "held")
        found = {name: measure(name, arguments, part, whole) for name in arguments.frameworks}
    halves = load_halves(*arguments.frameworks)
    record = {
        "command": ["python", "-m", "scripts.beyond_memory", *sys.argv[1:]],
        "framework": "; ".join(half.environment()["framework"] for half in halves.values()),
        "machine": f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} after",
        "images": dict(zip(("held", "whole"), counts)),
        "image_shape": SHAPE,
        "block": arguments.block,
        "limit_bytes": arguments.limit << 20,
        "page_cache": "dropped before each training",
        "halves": found,
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return found if arguments.kill else {name: of["streamed_over_in_memory"]["median"] for name, of in found.items()}


if __name__ == "__main__":
    run_command(sys.modules[__name__])
