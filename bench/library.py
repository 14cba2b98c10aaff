"""Runs the library alone, warm in its own process: `python -m bench.library ADAPTER NORMALS`.

For every line of JSON on its input, `{"num_pairs", "seed", "limits", "target"}`, it makes a dataset and prints a line
of JSON: `{"seconds", "first", "processor", "attempts", "sha256"}`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from model.adapter_card import read_adapter_card
from model.cli.checks import load_normals, open_base
from model.data.placement import NormalImage
from model.generation.counts import Counts
from model.generation.dataset import make_dataset
from model.generation.request import GenerationRequest
from model.masks.networks import load_object_net
from model.masks.u2net import U2Net
from model.method import Adapter
from model.methods import load_adapter, method_of
from model.runtime.malloc import keep_freed_memory
from service.core.options.quality import QualityLimits
from service.core.strict_json import to_json


def make(
    adapter: Adapter, object_net: U2Net | None, normals: list[NormalImage], asked: dict[str, Any]
) -> dict[str, Any]:
    """Make a dataset with the settings of a job with the same request.

    Returns:
        The fields of `bench.sides.Made`.
    """
    target, counts = Path(asked["target"]), Counts()
    began, used, first = time.perf_counter(), time.process_time(), 0.0
    settings = method_of(adapter).resolve_sampling(
        adapter.base, {"seed": asked["seed"]}, has_normals=bool(normals), adapter=adapter
    )
    request = GenerationRequest(
        adapter,
        settings,
        asked["num_pairs"],
        normals=normals,
        object_net=object_net,
        limits=QualityLimits(**asked["limits"]),
    )
    for _ in make_dataset(request, target, counts=counts):
        if not first and counts.accepted:
            first = time.perf_counter() - began
    seconds = time.perf_counter() - began
    used = time.process_time() - used
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.unlink()
    return {"seconds": seconds, "first": first, "processor": used, "attempts": counts.attempts, "sha256": digest}


def main() -> None:
    keep_freed_memory()  # like the worker that it is compared with
    folder, normals = Path(sys.argv[1]), load_normals(Path(sys.argv[2]))[0]
    base = open_base(str(read_adapter_card(folder)["base"]["name"]))
    adapter, object_net = load_adapter(folder, base), load_object_net(base)
    for line in sys.stdin:
        sys.stdout.write(to_json(make(adapter, object_net, normals, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
