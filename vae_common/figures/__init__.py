"""Figures: arrays in, PNG out."""
