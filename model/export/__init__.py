"""Writes datasets of pairs: one deterministic zip, with layouts that trainers and annotation tools read directly."""
