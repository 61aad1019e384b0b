"""Reproduces table 1 of Importance Weighted Autoencoders (Burda et al. 2016), one stochastic layer, in both halves."""

from vae_common.cli import paper_table
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(paper_table)
