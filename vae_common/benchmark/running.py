"""A whole benchmark: planned and checked, run case by case, each in a fresh process, and written down."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vae_common import files, stopping
from vae_common.benchmark import peers
from vae_common.benchmark.cases import Case
from vae_common.benchmark.measurement import of_epochs
from vae_common.benchmark.peers import PACKAGES
from vae_common.benchmark.records import Record
from vae_common.benchmark.results import against, merged, read_results, summary
from vae_common.benchmark.suites import cases_of
from vae_common.benchmark.verdict import notes, sentence, time_to_target
from vae_common.config.checks import require_count
from vae_common.errors import InputError, require
from vae_common.files import reason
from vae_common.machine import (
    cores,
    equal_threads,
    instructions,
    kept_memory,
    others_running,
    processor,
    settle,
    threads_taken,
)
from vae_common.progress import Progress

KIND, PLAN, LOG = "benchmark", "plan.json", "records.jsonl"
"""A benchmark's kind of record, and its files: what was asked for, and each record as soon as it is there."""
MOST_ROUNDS = 10_000
SPINNING = "spinning"
"""How PyTorch's threads wait where nobody has chosen."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A benchmark that has been checked: what is measured, and what it is compared with."""

    base: Case
    suite: str
    cases: tuple[Case, ...]
    processes: int
    programs: str | None
    peers: str | None
    """The interpreter of an environment that has the peers."""
    baseline: Path | None
    command: tuple[str, ...]
    machine: Mapping[str, Any]
    """Where it was begun: it goes on nowhere else, with the same threads."""

    def settle(self) -> None:
        """Takes the threads, and has them wait, as where it was begun."""
        if self.machine["waiting"] != SPINNING:
            os.environ["OMP_WAIT_POLICY"] = self.machine["waiting"]
        wanted = self.machine["threads"]
        settle(None if wanted == threads_taken() else wanted)

    def write(self, folder: Path) -> None:
        """Keeps it in the benchmark's folder, to go on with."""
        values = dataclasses.asdict(self) | {"baseline": None if self.baseline is None else str(self.baseline)}
        files.write_json(folder / PLAN, {files.KIND: KIND} | values)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """A folder's plan; InputError where it has none."""
        path = folder / PLAN
        if not path.exists():
            raise InputError(f"resume: {folder} has no {PLAN}; expected a folder that benchmark began")
        held = files.read_json(path, "resume")
        try:
            values = {name: held[name] for name in ("suite", "processes", "programs", "peers")}
            return cls(
                base=Case.from_json(held["base"]),
                cases=tuple(map(Case.from_json, held["cases"])),
                baseline=held["baseline"] and Path(held["baseline"]),
                command=tuple(held["command"]),
                machine=held["machine"],
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"resume: {path} is damaged ({files.reason(error)}); begin the benchmark anew") from error


def plan(
    base: Case,
    suite: str,
    *,
    frameworks: Sequence[str],
    executions: Sequence[str] = (),
    processes: int = 1,
    programs: str | None = None,
    peers: str | None = None,
    baseline: Path | None = None,
    command: Sequence[str] = (),
) -> Plan:
    """The cases of a suite. Nothing is written, and nothing is measured before all of it has been checked.

    Args:
        base: what every case has, but for what the suite changes.
        suite: one of SUITES.
        executions: of PyTorch; none stands for all that the device has.
        programs: where compiled programs are found and kept; None keeps none, so that every start is a cold one.
        peers: the Python of an environment that has them.
        baseline: an earlier `benchmark.json`, to compare with.

    Raises:
        InputError: where what was asked for cannot be run: no device, arithmetic or execution of that name, too much
            memory, a baseline that is none.
    """
    require_count("processes", processes, 1, MOST_ROUNDS)
    require_count("rounds", base.rounds, 1, MOST_ROUNDS)
    if baseline:
        read_results(baseline)
        baseline = baseline.absolute()
    if peers is not None and os.sep in peers:
        peers = str(Path(peers).absolute())  # and no further: a virtual environment's is a link
    gpu = base.device == "cuda" or (base.device == "auto" and _said("nvidia-smi") is not None)
    modes = executions or (*(("graph",) if gpu else ()), "eager", "compile")
    variants = [(f, e) for f in frameworks for e in (modes if f == "torch" else ("auto",))]
    if not variants:
        raise InputError(f"frameworks: received {list(frameworks)}, expected at least one")
    if (peers is not None) != (suite == "peers"):
        raise InputError(
            f"peers: received {peers!r} with the suite {suite}; expected both: --suite peers --peers PYTHON"
        )
    if peers is not None:
        require(not gpu, "peers", "a GPU", "--device cpu: peers are measured on processors")
        _require_peers(peers)
    cases = cases_of(suite, base, variants, gpu)
    for case in cases:
        case.checked()
    asked = [dataclasses.replace(base, framework=f, execution=e) for f, e in variants]
    with ThreadPoolExecutor(len(asked)) as pool:
        checked = list(pool.map(lambda case: _measured(case, programs, check=True), asked))
    for case, failed in ((case, record.error) for case, record in zip(asked, checked)):
        if failed is not None:
            raise InputError(f"benchmark: no process could be started for {case.framework} ({failed})")
    distinct = tuple(dict.fromkeys(cases))
    return Plan(base, suite, distinct, processes, programs, peers, baseline, tuple(command), machine())


def execute(ordered: Plan, folder: Path) -> dict[str, Any]:
    """Runs the cases that the folder has no records of yet, writes `benchmark.json` into it and returns what it holds.

    Raises InputError where no case could be run.
    """
    where, base, now = ordered.machine, ordered.base, machine()
    for name in ("cpu", "cores", "instructions", "threads", "waiting"):
        require(now[name] == where[name], "resume", f"{name} {now[name]}", f"{where[name]}, with which it was begun")
    ordered.write(folder)
    results = run_cases(ordered, folder / LOG)
    if all(result.error is not None for result in results):
        raise InputError(f"benchmark: no case could be run; the first said: {results[0].error}")
    record: dict[str, Any] = {
        "notes": notes(results, where),
        files.KIND: KIND,
        "command": list(ordered.command),
        "suite": ordered.suite,
        "machine": where,
        "base": dataclasses.asdict(base),
        "found": sentence(results, base),
    }
    record |= {"summary": summary(results, base), "results": [result.to_json() for result in results]}
    target = time_to_target(results, base)
    if target is not None:
        record["summary"]["time_to_target"] = target
    if ordered.baseline is not None:
        record["summary"]["against_baseline"] = against(results, read_results(ordered.baseline))
        if not record["summary"]["against_baseline"]:
            record["notes"].append(f"{ordered.baseline} has none of these cases on this kind of device")
    text = json.dumps(record, indent=1) + "\n"
    files.write_atomically(folder / "benchmark.json", text.encode())
    written: dict[str, Any] = json.loads(text)
    return written


def run_cases(ordered: Plan, log: Path) -> list[Record]:
    """One record per different case; each is measured in as many fresh processes as are asked for, turn by turn.

    Every record is added to `log` as soon as it is there, and what is in it already is not measured again. A case that
    fails has an `error` in place of numbers, and the others go on.
    """
    found: dict[str, list[Record]] = {}
    for record in _logged(log):
        found.setdefault(record.key, []).append(record)
    devices = {record.platform for records in found.values() for record in records} - {None}
    done = sum(map(len, found.values()))
    with Progress("benchmark", ordered.processes * len(ordered.cases), "case", done) as bar:
        for turn in range(ordered.processes):
            for case in ordered.cases:
                if len(found.get(case.key, ())) > turn:
                    continue
                record = _one_record(case, ordered)
                if record.platform is not None:
                    devices.add(record.platform)
                if len(devices) > 1:
                    named = ", ".join(sorted(map(str, devices)))
                    raise InputError(f"device: the halves run on {named}; choose one with --device")
                files.append_line(log, json.dumps(record.to_json()))
                found.setdefault(case.key, []).append(record)
                bar.update(note=f"{case.kind} {case.framework} {case.execution} {case.precision}")
    return [merged(found[case.key]) for case in ordered.cases]


def _logged(log: Path) -> list[Record]:
    """The records of a benchmark that was stopped; a last line that was cut short is measured again."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        files.write_atomically(log, "".join(whole).encode())
    records = [Record.from_json(json.loads(line)) for line in whole]
    return [record for record in records if record.error is None]  # what failed is tried again


def _one_record(case: Case, ordered: Plan) -> Record:
    try:
        if case.framework in PACKAGES:
            return _of_a_peer(case, str(ordered.peers))
        if case.kind != "warm":
            return _measured(case, ordered.programs)
        with tempfile.TemporaryDirectory(prefix="twin-vae-") as programs:
            _measured(case, programs)  # compiles, and keeps
            return _measured(case, programs)
    except (InputError, OSError) as error:
        return Record(case, error=str(error))


def _require_peers(python: str) -> None:
    """Raises InputError where an interpreter lacks what the peers consist of."""
    wanted = sorted({name for packages in PACKAGES.values() for name in packages})
    code = f"import importlib.util as u; print(*[n for n in {wanted} if u.find_spec(n) is None])"
    try:
        lacks = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"peers: {python} cannot be run ({reason(error)}); expected a Python") from error
    if lacks:
        raise InputError(f"peers: {python} has no {', '.join(lacks)}; install: pip install {' '.join(wanted)}")


def _of_a_peer(case: Case, python: str) -> Record:
    """Whole epochs of a peer, in its own environment; the first, which compiles, is left out."""
    config = case.config()
    task = {
        "peer": case.framework,
        "hidden": config.network.hidden[0],
        "latent_dim": config.network.latent_dim,
        "activation": config.network.activation,
        "dynamic": config.data.binarization == "dynamic",
        "batch_size": case.batch_size,
        "images": case.images,
        "epochs": case.rounds + 1,
    }
    with tempfile.TemporaryDirectory(prefix="twin-vae-") as folder:
        command = [python, str(Path(peers.__file__)), json.dumps(task)]
        own = os.environ | equal_threads() | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        own |= kept_memory() if "torch" in PACKAGES[case.framework] else {}  # as the PyTorch half does
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=folder, env=own, **pipes) as peer, stopping.saving(peer.kill):
            said, failed = peer.communicate()
    if peer.returncode:
        return Record(case, error=_last_error(failed) or f"exit status {peer.returncode}")
    found = json.loads(said.splitlines()[-1])
    record = of_epochs(case, found["seconds"][1:], case.images // case.batch_size)
    environment = {"framework": found["versions"], "threads": str(threads_taken())}
    return dataclasses.replace(record, platform="cpu", environment=environment)


def _measured(case: Case, programs: str | None, check: bool = False) -> Record:
    """What a fresh process measures of a case; with `check` it only says whether it could. It ends with this one."""
    kept = programs or tempfile.mkdtemp(prefix="twin-vae-")
    text = json.dumps({"case": dataclasses.asdict(case), "programs": programs, "check": check, "follow": True})
    command = [sys.executable, "-m", "vae_common.benchmark.worker", text]
    environment = os.environ | equal_threads() | ({} if programs else {"TORCHINDUCTOR_CACHE_DIR": kept})
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        with subprocess.Popen(command, text=True, env=environment, **pipes) as worker, stopping.saving(worker.kill):
            assert worker.stdout is not None
            assert worker.stderr is not None
            # Its standard input stays open as long as this process lives: that is how it knows.
            with ThreadPoolExecutor(1) as pool:
                errors = pool.submit(worker.stderr.read)
                said, failed = worker.stdout.read(), errors.result()
    finally:
        if not programs:
            shutil.rmtree(kept, ignore_errors=True)
    if worker.returncode:
        last = _last_error(failed) or f"exit status {worker.returncode}"
        if worker.returncode == 2:
            raise InputError(last.removeprefix("error: "))
        return Record(case, error=last)
    return Record(case) if check else Record.from_json(json.loads(said.splitlines()[-1]))


def _last_error(said: str) -> str:
    """The line of a process's last words that says what happened: its exception's, which may go on for several."""
    lines = [line.strip() for line in said.strip().splitlines()]
    raised = [line for line in lines if re.match(r"([\w.]+\.)?\w*(Error|Exception|Interrupt)(: |$)|error: ", line)]
    return (raised or lines or [""])[-1]


def machine() -> Mapping[str, Any]:
    """What a record must say of where it was measured."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "threads": threads_taken(),
        "instructions": list(instructions()),
        "waiting": os.environ.get("OMP_WAIT_POLICY", SPINNING),
        "memory_kept": bool(kept_memory()),
        "load_before": os.getloadavg()[0],
        "others_running": others_running(),
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": _said("git", "describe", "--always", "--dirty"),
    }


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
