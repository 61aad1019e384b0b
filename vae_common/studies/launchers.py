"""Where the trainings of a study run: one after the other in this process, or as jobs of a cluster."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_common.backend import load_halves
from vae_common.config import Config
from vae_common.data import datasets
from vae_common.errors import InputError, one_line
from vae_common.files import parse_json
from vae_common.runs import trainer


@dataclass(frozen=True)
class Job:
    """The runs of one model in one half, a seed each, as another process can be told of them."""

    framework: str
    configs: tuple[dict[str, Any], ...]
    """As JSON holds them."""
    folders: tuple[str, ...]
    command: tuple[str, ...]
    together: bool
    given_up: str
    """The file's name that says of a run that its loss stopped being finite."""

    def run(self) -> None:
        """Trains them to their end from wherever they stand."""
        configs = [Config.from_json(values) for values in self.configs]
        half = load_halves(self.framework)[self.framework]
        dataset = datasets.load_for(configs[0].data)
        folders = [Path(folder) for folder in self.folders]
        options: dict[str, Any] = {"together": self.together, "given_up": self.given_up, "command": list(self.command)}
        trainer.complete(half, configs, dataset, folders, **options)


def submit(jobs: Sequence[Job], folder: Path, settings: Sequence[str]) -> None:
    """Runs jobs as submitit does: on SLURM where there is one, else as processes of this machine; waits for all.

    Args:
        folder: for what submitit keeps: logs, and what it hands to the jobs.
        settings: of its executor, `name=value`: timeout_min=600, slurm_partition=gpu, cpus_per_task=4.

    Raises InputError where it is not installed, for settings that it does not take, and where a job failed, with the
    end of what it said. What other jobs trained stays; the same command goes on with the rest.
    """
    if importlib.util.find_spec("submitit") is None:
        raise InputError("launcher: submitit is not installed: pip install '.[cluster]'")
    import submitit

    executor = submitit.AutoExecutor(folder=str(folder))
    try:
        executor.update_parameters(**dict(map(_setting, settings)))
        submitted = executor.map_array(Job.run, jobs)
    except (TypeError, NameError, ValueError) as error:
        said = f"job: received {' '.join(settings)} ({one_line(error, 200)})"
        raise InputError(f"{said}; expected submitit's own, such as timeout_min=600") from error
    failed = []
    for job in submitted:
        try:
            job.result()
        except Exception as error:  # whatever it was, the others are waited for
            lines = re.findall(r"^[\w.]*(?:Error|Exception|Loss): .*", str(error), re.MULTILINE)
            failed.append(f"job {job.job_id}: {lines[-1] if lines else one_line(error, 150)}")
    if failed:
        mend = f"look into {folder}, then give the same command again: it goes on with the rest"
        raise InputError(f"launcher: {len(failed)} of {len(jobs)} jobs failed ({one_line(failed[0], 200)}); {mend}")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"job: received {one_line(text, 100)}, expected name=value, for example timeout_min=600")
    try:
        return name, parse_json(value)
    except ValueError:
        return name, value
