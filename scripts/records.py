"""Writes results/README.md: each record with the command that it holds itself. python -m scripts.records"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.cli.command_line import run_command

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHOWS = {
    "mnist-2d/summary.json": "AE and VAE, 20 epochs: each half within the other's spread over seeds",
    "mnist-bernoulli50/summary.json": "a published negative ELBO (99.63 ± 0.30), both halves",
    "mnist-lockstep/summary.json": "300 float64 steps, full size, Bernoulli",
    "mnist-lockstep-squared/summary.json": "300 float64 steps, full size, squared error",
    "mnist-paired/summary.json": "the same seeds, shared randomness: equivalence",
    "mnist-pilot/summary.json": "the spread between seeds, from which the next two have their margins",
    "mnist-independent-vae/summary.json": "disjoint seeds, native randomness: losses, descriptors, neighbourhoods",
    "mnist-independent-ae/summary.json": "the same of the autoencoder",
    "flax-example-1/summary.json": "Flax's own VAE example after 1 epoch",
    "flax-example-10/summary.json": "after 10",
    "flax-example-20/summary.json": "after 20",
    "mnist-conv/summary.json": "a convolutional VAE, grey, ten seeds",
    "photos-kl/summary.json": "kl_autoencoder on 64x64 patches of two photographs, colour",
    "kl-digits/summary.json": "kl_autoencoder on digits, its latents channel by channel",
    "paper-table/table.json": "table 1 of Burda et al. 2016 after 40 of 3,280 passes; what is missing says so",
    "benchmark-quick/benchmark.json": "a step over its floor, starts, the recipe; a processor with AVX-512 and AMX",
    "benchmark-quick-amd/benchmark.json": "the same on an AMD EPYC with AVX2 alone, shared with others",
    "benchmark-peers/benchmark.json": "whole epochs beside NumPyro, Keras, pythae and two recipes",
    "benchmark-float32/benchmark.json": "one network alone, starts with and without kept programs",
    "benchmark-bfloat16/benchmark.json": "the same in bfloat16, on a processor that multiplies it",
    "profile-dense/profile.json": "where a step's time goes, 784-512-2",
    "profile-conv/profile.json": "the same of two convolutions",
    "profile-residual/profile.json": "the same of a residual model",
    "benchmark-gpu/benchmark.json": "steps and whole epochs on an H200; the rest of the suite is missing",
    "profile-gpu/profile.json": "where a PyTorch step's time goes on it; JAX's is missing",
    "waiting.json": "how PyTorch's threads should wait, beside other programs",
    "benchmark-cpu/benchmark.json": "batch sizes, precisions, seeds, time to a test loss, growth",
    "ladder.json": "ladder_vae of five layers on MNIST, dynamic binarization: bound and likelihood, both halves",
    "ladder-depth.json": "one, two and three layers in ten epochs: what depth brings",
    "diffusers.json": "kl_autoencoder against diffusers: 20 random configs and Stable Diffusion's",
    "convolution-floor.json": "steps of convolutional and residual models over their convolutions alone, AVX2",
    "convolution-floor-avx512.json": "the same on a processor with AVX-512 and AMX",
    "beyond-memory-jax.json": "20 GB streamed in a process of 2 GiB, and the same images in memory",
    "beyond-memory-torch.json": "the same of the PyTorch half",
    "beyond-memory-wide.json": "half a gigabyte of it, a wider network",
    "beyond-memory-killed-jax.json": "5 GB streamed, killed in the epoch, gone on with by one process and two",
    "beyond-memory-killed-torch.json": "20 GB streamed, killed in the epoch, gone on with by one process and two",
    "scaling.json": "steps and collectives of 1, 2 and 4 processes; a prediction for many accelerators",
    "step-memory.json": "memory of a step: rematerialised, and shared by two processes",
    "tpu_compile.json": "step and epoch for TPU v5e, compiled and not run",
}
"""What each record shows, in the order of the table."""
HEAD = """# Records

Each folder holds what one command wrote: its `summary.json` (losses per seed, latent metrics, verdicts, versions, the
command itself) and, for most, its figures. Checkpoints are left out. Paths inside a summary are those of the run.
Speeds inside the summaries were taken while the machine did other work; only the benchmarks measure speed.

`python -m scripts.records` writes this page: every command below is the record's own. In records of earlier versions
`--samples` was called `--draws`, and `--ensemble` `--parallel-seeds`.

| record | made with | command | what it shows |
|---|---|---|---|
"""
TAIL = """
Three more files are written by tests with `--record`: [conformance.json](conformance.json), the largest share of its
tolerance that each tier used; [inputs.md](inputs.md), what is tried to break the program; and
[fault_table.json](../vae_common/comparison/fault_table.json), planted fault to the tiers that noticed it, which reports
show and which therefore lies in the package.

[weight_hashes.json](weight_hashes.json) is what `python -m scripts.weight_hashes --output results/weight_hashes.json`
gave on one machine: equal before and after a change that moves no number.

`benchmark-gpu/` has some cases of its suite only, put together from two runs that were stopped
([what is missing](../docs/accelerators.md)).

The pilot judges by margins of its own runs, the smaller spread of the two halves. One of its 15 claims, the VAE's
silhouette, is "not decided" there: 12 seeds happened to lie close in one half, which made the margin small.

The two halves' rows of `paper-table/` were trained by two such commands side by side, `--frameworks jax` and
`--frameworks torch`, one thread each; the command above then made the table of them.

The data came from TensorFlow Datasets (`mnist/3.0.1`). Records with jax 0.10.1 were made with `OMP_WAIT_POLICY=PASSIVE`
on 2 CPU cores that did other work; each names versions, flags, threads and load. Those with jax 0.10.2 are of earlier
commits: their latent metrics took the first rows of the test set, and their fingerprint is of the training images.
"""


@dataclass(frozen=True)
class Arguments:
    """Writes results/README.md from the records."""


def page() -> str:
    """The page, from the records as they are."""
    rows = []
    for name, shows in SHOWS.items():
        record = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        command = shlex.join(record["command"])
        rows.append(f"| [{name}]({name}) | {_versions(record)} | `{command}` | {shows} |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


def _versions(record: dict[str, Any]) -> str:
    """The frameworks that a record names."""
    if "environment" in record:
        return "; ".join(half["framework"] for half in record["environment"].values())
    if "results" in record:
        return "; ".join(dict.fromkeys(r["environment"]["framework"] for r in record["results"] if "environment" in r))
    return str(record.get("framework", "as the runs beside it"))


def main(arguments: Arguments) -> dict[str, Any]:
    files.write_atomically(RESULTS / "README.md", page().encode())
    return {"page": str(RESULTS / "README.md"), "records": len(SHOWS)}


if __name__ == "__main__":
    run_command(sys.modules[__name__])
