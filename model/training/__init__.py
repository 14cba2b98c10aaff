"""Provides checkpoints and early stopping."""
