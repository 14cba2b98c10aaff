"""Sampling of DualAnoDiff: from seeds to decoded pairs."""
