"""The command `twin-vae`: `twin-vae NAME --help` says what NAME takes."""

from __future__ import annotations

import importlib
import sys

from vae_common import stopping
from vae_common.errors import shown

COMMANDS = {
    "train": "trains one model in one half, or goes on with a run",
    "compare": "trains both halves, or takes finished runs, and lays them side by side in a report",
    "plot": "draws every figure of a finished run",
    "evaluate": "evaluates a run: ELBO, likelihood, rate, distortion, latent structure",
    "import": "makes a run of a folder that diffusers' AutoencoderKL wrote",
    "export": "writes a run's kl_autoencoder as diffusers reads it",
    "sweep": "trains every combination of some fields' values",
    "benchmark": "measures what a step and an epoch cost in both halves",
    "profile": "lays a training step's time out part by part, in both halves",
    "tutorial": "the tutorial from end to end: trains its AE and its VAE and draws its figures",
    "paper_table": "reproduces table 1 of Burda et al. 2016",
}
MODULES = {"import": "import_model", "export": "export_model"}
"""Where a command's name cannot be its module's."""
USAGE = "usage: twin-vae NAME [flags]; twin-vae NAME --help lists the flags\n\n" + "\n".join(
    f"  {name:12} {said}" for name, said in COMMANDS.items()
)


def main() -> None:
    """Runs the command that the first argument names."""
    stopping.install()
    name, flags = next(iter(sys.argv[1:]), "--help").replace("-", "_"), sys.argv[2:]
    if name in ("__help", "_h"):
        print(USAGE)
        return
    if name not in COMMANDS:
        said = f"error: command: received {shown(sys.argv[1])}, expected one of {', '.join(COMMANDS)}"
        print(said, file=sys.stderr)
        sys.exit(2)
    from vae_common.cli.command_line import as_installed, run_command

    as_installed()
    sys.argv = [f"twin-vae {name}", *flags]
    run_command(importlib.import_module(f"vae_common.cli.{MODULES.get(name, name)}"))


if __name__ == "__main__":
    main()
