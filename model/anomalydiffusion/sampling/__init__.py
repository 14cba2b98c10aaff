"""Sampling of AnomalyDiffusion: masks first, then filling them."""
