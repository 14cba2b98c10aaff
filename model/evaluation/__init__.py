"""Measures what generated pairs are worth: detectors trained on them, tested on held-out photographs."""
