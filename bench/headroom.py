"""How much more real photographs would help: the most that generated pairs could add on a set of photographs.

    python -m bench.headroom DATA_FOLDER --out DIR --steps 400 1600 --seeds 3

Trains the detectors of `pairforge evaluate` on the few pairs of the split, and on all photographs of the same physical
parts, which `splits.json` lists as `train_group_rest` or `train_other_exposures`. Both are tested on the photographs of
other parts. Where many real pairs are no better than a few, no generated ones can be expected to be; where longer
trainings change that, the shorter ones hide it. What is measured is kept in DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.diffusion.base import load_base
from model.evaluation.data import EvaluationData, read_evaluation_data
from model.evaluation.layouts import SPLITS
from model.evaluation.profiles import PROFILES
from model.evaluation.run import VERDICT_METRIC, EvaluationRequest, evaluate
from model.masks.networks import MaskNetworks
from service.core.errors import UsageError
from service.core.strict_json import to_json

REST = ("train_group_rest", "train_other_exposures")
"""Lists of a split that name further photographs of its training parts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one folder of photographs and print a table."""
    options = _parse(arguments)
    try:
        splits = {"few": options.data, "all": _with_all(options.data, options.out / "all")}
        for name, folder in splits.items():
            data = read_evaluation_data(folder, without=options.without)
            for steps in options.steps:
                row = _measured(data, steps, options.seeds, options.out / f"{name}-{steps}")
                pairs = sum(len(split.train) for split in data.defects.values())
                mean, sd = row["mean"][VERDICT_METRIC], row["sd"].get(VERDICT_METRIC, 0.0)
                told = f"{pairs} pairs, {steps} steps: pixel AP {100 * mean:.1f} ± {100 * sd:.1f} %"
                sys.stdout.write(f"{options.data.name}, {name}: {told}\n")
                sys.stdout.flush()
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _with_all(folder: Path, target: Path) -> Path:
    """Link a folder's pictures, with a split that trains on all photographs of the training parts.

    Raises:
        UsageError: the split names no further photographs.
    """
    splits = json.loads((folder / SPLITS).read_text(encoding="utf-8"))
    further = 0
    for division in splits["defects"].values():
        rest = [name for key in REST for name in division.get(key) or []]
        division["train"] += rest
        further += len(rest)
    if not further:
        raise UsageError(f"{folder / SPLITS} names no further photographs of its training parts ({' or '.join(REST)})")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder.resolve(), target, copy_function=os.symlink)
    (target / SPLITS).unlink()
    (target / SPLITS).write_text(to_json(splits), encoding="utf-8")
    return target


def _measured(data: EvaluationData, steps: int, seeds: int, work: Path) -> dict[str, Any]:
    """Return the row of real pairs."""
    profile = PROFILES["cpu"].with_choices(seeds=seeds, rows=("real",), steps=steps, detectors=1)
    request = EvaluationRequest(data, profile, load_base("mini"), MaskNetworks(None, None))
    results = [item for item in evaluate(request, work) if isinstance(item, dict)]
    return dict(results[-1]["rows"][0])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of real photographs with splits.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is measured")
    parser.add_argument("--steps", type=int, nargs="+", default=[400, 1600], help="training steps of the detectors")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without", type=lambda text: text.split(","), default=[], help="photographs to leave out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
