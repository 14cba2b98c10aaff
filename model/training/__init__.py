"""Checkpoints and early stopping."""
