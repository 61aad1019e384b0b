"""Measures both halves, each case in a fresh process, and draws it: python -m scripts.benchmark --suite quick"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vae_common import files, machine, stopping
from vae_common.backend import Framework, installed
from vae_common.cli.command_line import called, require_only
from vae_common.cli.experiment import Experiment, Flat, ModelName, load_dataset
from vae_common.config.parts import Execution
from vae_common.errors import InputError

if TYPE_CHECKING:
    from vae_common.benchmark.cases import Case
    from vae_common.benchmark.running import Plan


def _cold() -> Experiment:
    return Experiment(program_cache=False)


@dataclass(frozen=True)
class Arguments:
    """Measures both halves, each case in a fresh process; the last line carries what a benchmark is read for."""

    suite: Literal["quick", "network", "recipe", "peers", "full", "accelerator"] | None = None
    """quick: 2 minutes on 2 cores. network: the network that the other flags describe, alone; taken where they describe
    one. recipe: whole MNIST-sized epochs beside a common recipe's. peers: beside what a user would pick instead. full:
    all but those. accelerator: 8 minutes on a GPU."""
    frameworks: tuple[Framework, ...] = field(default_factory=installed)
    executions: tuple[Execution, ...] = ()
    """Of PyTorch; by default eager and compile, and graph on a GPU. JAX runs an epoch as one program."""
    model: ModelName = "vae"
    run: Path | None = None
    """A run's folder: its network is measured."""
    rounds: int = 5
    """Turns of floor and step in each process, after one that warms up."""
    processes: int | None = None
    """Fresh ones for each case; all cases take turns. By default 3 of a network alone and beside peers, else 1."""
    peers: str | None = None
    """peers: the Python of an environment that has numpyro, keras, pythae, flax and torch."""
    baseline: Path | None = None
    """An earlier benchmark.json to compare with, paired."""
    beside: tuple[Path, ...] = ()
    """Records, benchmark.json, that are laid side by side as a page; nothing is measured."""
    resume: Path | None = None
    """The folder of a benchmark that was stopped, to go on with."""
    output: Path | None = None
    """The folder for benchmark.json and figures; by default a new one under runs/."""
    experiment: Annotated[Experiment, Flat] = field(default_factory=_cold)


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.benchmark import pages, running
    from vae_common.runs.folder import new_folder

    if arguments.beside:
        require_only("--beside", ("--output",), sys.argv[1:])
        page = pages.page(arguments.beside)
        target = new_folder(arguments.output, "benchmarks") / "side_by_side.html"
        files.write_atomically(target, page.encode(errors="backslashreplace"))
        return {"page": str(target)}
    if arguments.resume is not None:
        require_only("--resume", (), sys.argv[1:])
        ordered, folder = running.Plan.read(arguments.resume), arguments.resume
        ordered.settle()
    else:
        machine.settle(arguments.experiment.threads)
        ordered = _planned(arguments)
        folder = new_folder(arguments.output, "benchmark")
    how = f"{' '.join(called('benchmark'))} --resume {shlex.quote(str(folder))}"
    with files.alone_in(folder, "is being measured in by another process"), stopping.mend(lambda: how):
        return _told(running.execute(ordered, folder), folder)


def _planned(arguments: Arguments) -> Plan:
    """What the flags ask for; nothing is written."""
    from vae_common.benchmark import running
    from vae_common.files import program_cache

    base, simple = _base(arguments)
    suite = arguments.suite or ("quick" if simple else "network")
    ignored = [] if suite == "network" else [f"--{name}" for name in IGNORED[suite] if _differs(base, name)]
    if suite != "network" and (ignored or not simple):
        told = ", ".join(ignored).replace("_", "-") or "flags"
        raise InputError(f"suite: received {suite} with {told} that it does not read; expected network for that")
    kept = program_cache() if arguments.experiment.program_cache else None
    default = 3 if suite in ("network", "peers") else 1
    return running.plan(
        base,
        suite,
        frameworks=arguments.frameworks,
        executions=arguments.executions,
        processes=default if arguments.processes is None else arguments.processes,
        programs=None if kept is None else str(kept),
        peers=arguments.peers,
        baseline=arguments.baseline,
        command=[*called("benchmark"), *sys.argv[1:]],
    )


def _base(arguments: Arguments) -> tuple[Case, bool]:
    """What every case has, and whether a case's own fields say all of it."""
    from vae_common.benchmark.cases import Case
    from vae_common.runs.folder import Run

    if arguments.run is not None:
        require_only("--run", _BESIDE_RUN, sys.argv[1:])
        config = Run(arguments.run).checkpoint().config
        return Case.of(config, rounds=arguments.rounds).checked(), False
    experiment = arguments.experiment
    network, training, data = experiment.network, experiment.training, experiment.data
    plain = Case(
        model=arguments.model,
        hidden=network.hidden,
        latent_dim=network.latent_dim,
        batch_size=training.batch_size,
        precision=training.precision,
        device=training.device,
        dataset=data.dataset,
        data_dir=data.data_dir,
        rounds=arguments.rounds,
    )
    said = replace(
        Experiment(),
        network=replace(Experiment().network, hidden=network.hidden, latent_dim=network.latent_dim),
        training=replace(
            Experiment().training, batch_size=training.batch_size, precision=training.precision, device=training.device
        ),
        data=replace(Experiment().data, dataset=data.dataset, data_dir=data.data_dir),
        program_cache=experiment.program_cache,
        threads=experiment.threads,
    )
    of_a_set = arguments.suite is None and any(_differs(plain, name) for name in ("dataset", "data_dir"))
    if said == experiment and arguments.suite != "network" and not of_a_set:
        return plain.checked(), True
    dataset = load_dataset(data)
    (config,) = experiment.configs([arguments.model], dataset)
    return replace(Case.of(config), **_told_of(plain)).checked(), False


_BESIDE_RUN = (
    "--suite", "--frameworks", "--executions", "--rounds", "--processes", "--baseline", "--output", "--threads",
    "--program-cache", "--no-program-cache",
)  # fmt: skip


IGNORED = {
    "quick": ("dataset", "data_dir"),
    "recipe": ("dataset", "data_dir", "hidden", "latent_dim"),
    "peers": ("dataset", "data_dir", "hidden", "latent_dim", "model", "batch_size", "precision"),
    "full": (),
    "accelerator": ("dataset", "data_dir"),
}
"""What a suite's own cases decide."""


def _differs(case: Case, name: str) -> bool:
    """Whether a flag was given another value than its default."""
    return bool(getattr(case, name) != getattr(type(case)(), name))


def _told_of(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in ("dataset", "data_dir", "rounds")}


def _told(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Draws the figures, prints table and sentence; returns what the command prints last."""
    from vae_common.benchmark import plots
    from vae_common.benchmark.records import Record
    from vae_common.benchmark.verdict import table

    figures = plots.save_figures(record, folder / "figures")
    print(*[f"note: {note}" for note in record["notes"]], sep="\n", end="\n" if record["notes"] else "")
    print(table([Record.from_json(result) for result in record["results"]]))
    if record["found"]:
        print(record["found"])
    summary: dict[str, Any] = record["summary"]
    told = {"notes": record["notes"], "found": record["found"], "record": str(folder / "benchmark.json")}
    return summary | told | {"figures": [str(path) for path in figures]}
