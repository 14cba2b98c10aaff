"""Writes the README of a dataset: what it contains, how to read it, and what its limits are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FILES = """\
| Path | Content |
|---|---|
| `images/000000.png` | generated image, RGB |
| `masks/000000.png` | its defect mask, 8-bit grey: 255 defect, 0 background; same size as the image |
| `manifest.jsonl` | one JSON object per pair: files, size, seed, scores, mask area and box, SHA-256 of both files |
| `dataset.json` | the request, the adapter, the base model's hash, how many candidates were rejected and why |
| `preview.png` | the real examples and the first generated pairs, best score first: image, outline of the mask, mask |
"""

LOADING = """\
```python
import json
from pathlib import Path
from PIL import Image

root = Path(".")  # where this archive was unpacked
for line in (root / "manifest.jsonl").open(encoding="utf-8"):
    pair = json.loads(line)
    image, mask = Image.open(root / pair["image"]), Image.open(root / pair["mask"])
```
"""

BY_RULES_ALONE = ", not by a person"

DRAWN = """\
**Every image under `images/` is generated** by a diffusion model that was adapted to a handful of real examples. The
masks are derived from what the model drew and were checked by rules, not by a person.
"""

FILLED = """\
**Every image under `images/` is generated**: on a photograph of a healthy part, a diffusion model that was adapted to a
handful of real examples drew a defect into a mask. The mask was there first, so it is exact; away from it, the pixels
are the photograph's own. `manifest.jsonl` names the defect type where there are several.
"""

COPIED = """\
**Every image under `images/` is generated**: a real defect was copied to a healthy photograph, and no model drew
anything. The mask is that of the copy. It is a baseline, to compare a generative method with.
"""

PATCHED = """\
**Every image under `images/` is generated**: a noise-shaped patch of foreign texture was laid on a healthy photograph,
and no model drew anything. The mask is that of the patch. It is a baseline, to compare a generative method with.
"""

ORIGINS = {"dualanodiff": DRAWN, "anomalydiffusion": FILLED, "copy-paste": COPIED, "perlin": PATCHED}
"""Method → how its pairs are made."""

REVIEWED = """\
**A person has approved every pair.** `review` in `manifest.jsonl` says who and when, whether the mask was changed by
hand, and of which job the pair was which candidate; `selection` in `dataset.json` names the datasets that they were
chosen from. Scores are those of the pair as it was generated.
"""

PROVENANCE = """\
Use the pairs as additional training data. Measure on real images only, and keep the real examples that the adapter was
made from out of that measurement. A pair can be drawn again from its seed, the request and the adapter; its hashes in
`manifest.jsonl` show whether it is the same.
"""

NORMALS = "`normals/images/` holds the healthy images that were provided: real, unchanged in content.\n"

FORMATS = {
    "mvtec": """\
### MVTec AD

`mvtec/` is a dataset root with one category: `train/good`, `test/good`, `test/<defect>`, `ground_truth/<defect>`. In
anomalib: `MVTecAD(root="mvtec", category="<the folder in it>")`.
""",
    "coco": """\
### COCO

`coco/instances_rle.json` and `coco/instances_polygons.json` hold the same instances, one per connected component;
`file_name` is relative to this folder. Polygons follow pixel edges and enter holes along a bridge of no width: both
files decode to the same masks.
""",
    "yolo": """\
### YOLO segmentation

`data.yaml`, with `labels/` beside `images/`. One line per connected component; the file of a healthy image is empty.
`val` is required by the trainer and repeats the training images: replace it by real ones.
""",
    "labelstudio": """\
### Label Studio

Import `labelstudio/tasks.json` into a project with the labelling interface of `labelstudio/config.xml`. Serve the
images as local files: `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`, and `LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` set
to this folder, whose `images` is added to the project as local storage.
""",
}

NO_GOOD_IMAGES = "\nNo healthy images were provided: put yours into `train/good` and `test/good` before training.\n"


def dataset_readme(
    kind: str,
    method: str,
    num_pairs: int,
    num_normals: int,
    formats: Sequence[str],
    *,
    reviewed: bool = False,
    partial: str | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> str:
    """Return the README as Markdown.

    Args:
        kind: names the object and the defect on one line.
        reviewed: whether a person has approved every pair.
        partial: why there are fewer pairs than were asked for; None if there are as many.
        verdict: of an evaluation on held-out photographs; None where there was none.
    """
    origin = ORIGINS[method].replace(BY_RULES_ALONE, "") + REVIEWED if reviewed else ORIGINS[method]
    title = kind.replace("`", "'")
    parts = [
        f"# `{title}`, {num_pairs} generated image–mask pair{'' if num_pairs == 1 else 's'}\n",
        *([f"This dataset is smaller than requested: {partial}.\n"] if partial is not None else []),
        *([_worth(verdict)] if verdict is not None else []),
        FILES,
        *([NORMALS] if num_normals else []),
        f"## Reading it\n\n{LOADING}",
        *(FORMATS[name] + (NO_GOOD_IMAGES if name == "mvtec" and not num_normals else "") for name in formats),
        f"## Where it comes from\n\n{origin}{PROVENANCE}",
    ]
    return "\n".join(parts)


def _worth(verdict: Mapping[str, Any]) -> str:
    """Say what a detector gained from the pairs."""
    if verdict["status"] != "measured":
        return f"What the pairs are worth was not measured: {verdict['detail']}.\n"
    limits = f" Note: {verdict['note']}." if "note" in verdict else ""
    return f"{verdict['sentence']}{limits} The numbers are under `evaluation` in `dataset.json`.\n"
