"""Makes a run of a folder that diffusers' AutoencoderKL wrote."""

from vae_common.cli import import_model
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(import_model)
