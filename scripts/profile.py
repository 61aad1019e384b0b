"""Where the time of a training step goes, in both halves: python -m scripts.profile --model vae --batch-size 128"""

from vae_common.cli import profile
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(profile)
