"""Writes a dataset: one zip of generated pairs, their provenance, and the requested layouts.

Pairs are written one by one and not kept in memory. The same pairs, request and card give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from model.adapter_card import types_of
from model.export.archive import Archive, new_archive
from model.export.coco import CocoLayout
from model.export.formats import Entry, Layout, StoredNormal, StoredPair
from model.export.labelstudio import LabelStudioLayout
from model.export.mvtec import MVTecLayout
from model.export.names import label
from model.export.outlines import bounding_box
from model.export.png import encode_image, encode_mask, encode_png
from model.export.preview import PairSheet
from model.export.readme import dataset_readme
from model.export.yolo import YoloLayout
from model.runtime.concurrency import threaded
from model.types import Candidate, ImageArray, Pair
from service.core.errors import UsageError
from service.core.options.methods import DEFAULT_METHOD
from service.core.strict_json import to_json, without_nan

FORMATS = ("mvtec", "coco", "yolo", "labelstudio")
FORMAT_VERSION = 1

ENCODING_THREADS = 8
"""Most threads that encode pairs; each keeps pairs in memory."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Describes where the pairs come from, for `dataset.json`.

    Attributes:
        object_name: the object, in the user's words; folder and class names are made from it.
        defect_name: the defect, likewise.
        request: the request as JSON. The dataset's bytes depend on it, so leave out irrelevant times and ids.
        adapter_card: the adapter's card, as JSON.
        base_hash: identifies the weights of the base model.
        base_license: their licence; None if the base names none.
        counts: the counts of the candidates, as JSON; `counts["accepted"]` is the number of pairs.
        evaluation: what the pairs are worth on held-out photographs, as JSON; None where that was not asked for.
        follows: the first candidate, and the datasets that the pairs must not repeat, as JSON; None if there are none.
        selection: who chose the pairs from which datasets, as JSON; None if all accepted pairs are there.
        partial: why there are fewer pairs than were asked for; None if there are as many.
    """

    object_name: str
    defect_name: str
    request: Mapping[str, Any]
    adapter_card: Mapping[str, Any] | None
    base_hash: str | None
    counts: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None
    follows: Mapping[str, Any] | None = None
    selection: Mapping[str, Any] | None = None
    partial: str | None = None
    base_license: str | None = None

    @property
    def defects(self) -> list[str]:
        """The defect types, whose classes and folders are apart."""
        return (
            [self.defect_name]
            if self.adapter_card is None
            else types_of({"defect": self.defect_name, **self.adapter_card})
        )


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """Summarises a dataset.

    Attributes:
        size_bytes: size of the zip.
        mask_fractions: smallest, median and largest share of an image that its mask covers, 0–1.
        description: the content of `dataset.json`: request, adapter, base hash, software, counts.
    """

    path: Path
    size_bytes: int
    num_pairs: int
    num_normals: int
    formats: tuple[str, ...]
    mask_fractions: tuple[float, float, float]
    description: dict[str, Any]


def check_formats(formats: Sequence[str]) -> None:
    """Raise a `UsageError` that names every unknown format."""
    problems = [
        f"format {name!r} does not exist: choose from {', '.join(FORMATS)}" for name in formats if name not in FORMATS
    ]
    if problems:
        raise UsageError(problems)


def write_dataset(
    path: Path,
    pairs: Iterable[Candidate],
    provenance: Provenance,
    *,
    formats: Sequence[str] = (),
    reals: Sequence[Pair] = (),
    normals: Iterable[tuple[str, ImageArray]] = (),
) -> DatasetSummary:
    """Write the zip to a temporary file and rename it when it is complete.

    Args:
        path: the zip to write; its folder must exist.
        pairs: the accepted pairs in order; iterated once.
        formats: layouts to add, from `FORMATS`.
        reals: the few-shot examples, shown in the preview only.
        normals: healthy images `(name, (H, W, 3) uint8)`, stored for the layouts that need them.

    Raises:
        UsageError: if a format does not exist.
        ValueError: if the number of pairs differs from the counts, or is 0.
    """
    check_formats(formats)
    formats = [name for name in FORMATS if name in formats]
    layouts = [_layout(name, provenance) for name in formats]
    sheet = PairSheet(reals)
    records: list[dict[str, Any]] = []
    with new_archive(path) as archive:
        threads = min(ENCODING_THREADS, os.cpu_count() or 1)
        for candidate, plain in threaded(enumerate(pairs), _encoded, threads=threads):
            stored = replace(plain, defect=provenance.defects.index(candidate.defect) if candidate.defect else 0)
            records.append(_write_pair(archive, layouts, candidate, stored))
            sheet.add(stored.number, candidate)
        if not records or len(records) != provenance.counts["accepted"]:
            raise ValueError(
                f"counts say {provenance.counts['accepted']} accepted pairs, but {len(records)} were given"
            )
        healthy = [_write_normal(archive, layouts, number, *normal) for number, normal in enumerate(normals)]
        for layout in layouts:
            _add_all(archive, layout.close())
        manifest = "".join(to_json(record, ensure_ascii=False) + "\n" for record in records).encode()
        description = _description(provenance, formats, healthy) | {
            "num_pairs": len(records),
            "manifest_sha256": archive.add("manifest.jsonl", manifest),
        }
        text = to_json(description, ensure_ascii=False, sort_keys=True, indent=2) + "\n"
        archive.add("dataset.json", text.encode())
        kind = f"{label(provenance.object_name, 'object')}: {label(provenance.defect_name, 'defect')}"
        method = str((provenance.adapter_card or {}).get("method", DEFAULT_METHOD))
        readme = dataset_readme(
            kind,
            method,
            len(records),
            len(healthy),
            formats,
            reviewed=provenance.selection is not None,
            partial=provenance.partial,
            verdict=provenance.evaluation["verdict"] if provenance.evaluation is not None else None,
        )
        archive.add("README.md", readme.encode())
        archive.add("preview.png", encode_png(sheet.render()))
    return summarise(path, json.loads(text), records)


def _description(provenance: Provenance, formats: Sequence[str], healthy: Sequence[dict[str, str]]) -> dict[str, Any]:
    optional = {
        "evaluation": provenance.evaluation,
        "follows": provenance.follows,
        "selection": provenance.selection,
        "partial": provenance.partial,
    }
    return {
        "format_version": FORMAT_VERSION,
        "software": {"name": "pairforge", "version": _software_version()},
        "object": provenance.object_name,
        "defect": provenance.defect_name,
        "request": provenance.request,
        "adapter": provenance.adapter_card,
        "base_hash": provenance.base_hash,
        "base_license": provenance.base_license,
        "counts": provenance.counts,
        "formats": formats,
        "normals": healthy,
        **{name: value for name, value in optional.items() if value is not None},
    }


def summarise(path: Path, description: dict[str, Any], records: Sequence[Mapping[str, Any]]) -> DatasetSummary:
    """Summarise a zip by its `dataset.json` and its manifest."""
    fractions = sorted(record["mask_fraction"] for record in records)
    return DatasetSummary(
        path=path,
        size_bytes=path.stat().st_size,
        num_pairs=len(records),
        num_normals=len(description["normals"]),
        formats=tuple(description["formats"]),
        mask_fractions=(fractions[0], fractions[len(fractions) // 2], fractions[-1]),
        description=description,
    )


def _layout(name: str, provenance: Provenance) -> Layout:
    match name:
        case "mvtec":
            return MVTecLayout(provenance.object_name, provenance.defects, provenance.counts["accepted"])
        case "coco":
            return CocoLayout(provenance.object_name, provenance.defects)
        case "yolo":
            return YoloLayout(provenance.defects)
        case _:
            return LabelStudioLayout(provenance.defects)


def _add_all(archive: Archive, entries: Iterable[Entry]) -> None:
    for name, data in entries:
        archive.add(name, data)


def _encoded(numbered: tuple[int, Candidate]) -> tuple[Candidate, StoredPair]:
    number, candidate = numbered
    image, mask = encode_image(candidate.image), encode_mask(candidate.mask)
    return candidate, StoredPair(number, f"{number:06d}", image, mask, candidate.mask)


def _write_pair(
    archive: Archive, layouts: Sequence[Layout], candidate: Candidate, stored: StoredPair
) -> dict[str, Any]:
    height, width = candidate.mask.shape
    record = {
        "index": stored.number,
        "image": stored.image_path,
        "mask": stored.mask_path,
        "image_sha256": archive.add(stored.image_path, stored.image_png),
        "mask_sha256": archive.add(stored.mask_path, stored.mask_png),
        "width": width,
        "height": height,
        "candidate": candidate.index,
        "seed": candidate.seed,
        "normal": candidate.normal,
        "window": candidate.window,
        "mask_area": int(candidate.mask.sum()),
        "mask_fraction": round(float(candidate.mask.mean()), 6),
        "bbox": bounding_box(candidate.mask),
        "scores": without_nan(dict(sorted(candidate.scores.items()))),
        **({} if candidate.review is None else {"review": candidate.review}),
    }
    if candidate.defect is not None:
        record["defect"] = candidate.defect
    if candidate.given is not None:
        record["given"] = candidate.given
    for layout in layouts:
        _add_all(archive, layout.pair(stored))
    return record


def _write_normal(
    archive: Archive, layouts: Sequence[Layout], number: int, name: str, image: ImageArray
) -> dict[str, str]:
    height, width = image.shape[:2]
    stored = StoredNormal(number, f"{number:06d}", encode_image(image), height, width)
    sha256 = archive.add(stored.image_path, stored.image_png)
    for layout in layouts:
        _add_all(archive, layout.normal(stored))
    return {"image": stored.image_path, "name": name, "image_sha256": sha256}


def _software_version() -> str:
    try:
        return version("pairforge")
    except PackageNotFoundError:
        return "source tree"
