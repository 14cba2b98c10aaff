"""`pairforge inspect`: describes an adapter or a dataset, and checks that it is intact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model.adapter_card import read_adapter_card
from model.cli.output import Output
from model.export.dataset import DatasetSummary
from model.export.inspection import read_dataset
from model.methods import METHODS
from service.core.errors import UsageError

SHOWN_SETTINGS = (
    *("resolution", "batch", "rank", "fill_rank", "embedding_lr", "lr", "view", "bcm", "spatial", "lora_targets"),
    *("prompts", "precision", "seed"),
)


def inspect(path: Path, output: Output) -> None:
    """Check all files of an adapter or a dataset, and describe it."""
    if not path.exists():
        raise UsageError(f"{path} does not exist: give an adapter folder or a dataset zip")
    if path.is_dir():
        card = read_adapter_card(path)
        weights = _weights(path, card)
        output.result(
            {"kind": "adapter", "path": str(path), "card": card, "weights": weights}, _adapter(path, card, weights)
        )
    else:
        summary = read_dataset(path)
        output.result({"kind": "dataset", "path": str(path), **_facts(summary)}, _dataset(path, summary))


def _weights(path: Path, card: dict[str, Any]) -> dict[str, int]:
    """Return file → how many numbers it holds; also checks that every reference image exists."""
    needed = METHODS[card["method"]].weight_files(card)
    present = needed + [name for name in ("mask_net.safetensors",) if (path / name).is_file()]
    problems, counts = [], {}
    for name in present:
        try:
            with safe_open(path / name, framework="pt") as file:
                shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118 - not a dictionary
        except (OSError, SafetensorError) as error:
            problems.append(f"{name} cannot be read: {error}")
            continue
        counts[name] = sum(_product(shape) for shape in shapes)
    for number in range(len(card["placements"])):
        problems += [
            f"reference/{name} is missing"
            for name in (f"{number:03d}.png", f"{number:03d}_mask.png")
            if not (path / "reference" / name).is_file()
        ]
    if problems:
        raise UsageError(problems, f"the adapter {path} is damaged or incomplete")
    return counts


def _product(shape: list[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _adapter(path: Path, card: dict[str, Any], weights: dict[str, int]) -> str:
    base, curve, config = card["base"], card["loss_curve"], card["config"]
    rows = {
        "adapter": path,
        "object": card["object"],
        "defect": card["defect"],
        "method": card["method"],
        "base": f"{base['name']} (sha256 {base['sha256'][:12]}…)",
        "pairs": f"{len(card['data'])} ({', '.join(entry['name'] for entry in card['data'][:6])}"
        + (", …)" if len(card["data"]) > 6 else ")"),
        "steps": card["steps"],
        "loss": f"{curve[0][1]:.4f} → {curve[-1][1]:.4f}" if curve else "none",
        "settings": ", ".join(f"{name} {config[name]}" for name in SHOWN_SETTINGS if name in config),
        "weights": f"{sum(weights.values()):,} numbers in {len(weights)} files, all readable",
    }
    return _table(rows)


def _facts(summary: DatasetSummary) -> dict[str, Any]:
    return {
        "num_pairs": summary.num_pairs,
        "num_normals": summary.num_normals,
        "size_bytes": summary.size_bytes,
        "formats": list(summary.formats),
        "mask_fractions": list(summary.mask_fractions),
        "intact": True,
        "description": summary.description,
    }


def _dataset(path: Path, summary: DatasetSummary) -> str:
    description = summary.description
    counts = description["counts"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts["rejected"].items()) or "none"
    smallest, median, largest = summary.mask_fractions
    rows = {
        "dataset": f"{path} ({summary.size_bytes / 1e6:.1f} MB)",
        "object": description["object"],
        "defect": description["defect"],
        "pairs": summary.num_pairs,
        "normals": summary.num_normals,
        "formats": ", ".join(summary.formats) or "images and masks only",
        "candidates": f"{counts['attempts']}, rejected: {reasons}",
        "mask area": f"{smallest:.2%} to {largest:.2%} of the image, median {median:.2%}",
        "seed": description["request"]["seed"],
        "base": f"sha256 {(description['base_hash'] or 'unknown')[:12]}…",
        "files": "all present, every hash matches",
    }
    return _table(rows)


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(f"{name + ':':<12}{value}" for name, value in rows.items())
