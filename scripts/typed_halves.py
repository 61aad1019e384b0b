"""Both halves as what they have to be, for mypy alone: nothing is run."""

import jax_vae
import torch_vae
from vae_common.backend import Half

JAX: Half = jax_vae
TORCH: Half = torch_vae
