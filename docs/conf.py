"""The site: `python -m sphinx docs build/docs`."""

import os
from pathlib import Path

os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)  # for the notebooks that are run
project = "Twin VAE"
author = "The Twin VAE authors"
copyright = "2026, the Twin VAE authors"
extensions = ["myst_nb"]
html_theme = "furo"
html_title = "Twin VAE"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
exclude_patterns = ["build"]
# Pages link to files of the repository, which lie outside of the site.
suppress_warnings = ["myst.xref_missing"]
