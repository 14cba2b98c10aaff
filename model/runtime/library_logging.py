"""Keeping the libraries' own remarks from where a program tells of its own work. Imports none of them."""

from __future__ import annotations

import os

_SILENCED = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def silence_imports() -> None:
    """Set what the libraries read when they are imported; what the user has set stays."""
    for name, value in _SILENCED.items():
        os.environ.setdefault(name, value)
