"""Comparing two programs' numbers: checks, lockstep, equivalence, the energy test. Knows no model and no config."""
