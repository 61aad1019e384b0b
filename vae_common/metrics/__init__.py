"""Metrics of latent structure."""
