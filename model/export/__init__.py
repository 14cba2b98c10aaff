"""Datasets of pairs: one deterministic zip, with the layouts that trainers and annotation tools read as they are."""
