"""Inputs of real users, made by the scripts of a folder beside the checkout: what the library and the API make of them.

Each picture shows a dark scratch whose number of pixels is known, so a mask that is taken wrongly has another area, and
one that lies beside the scratch no contrast.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from service.core import object_keys
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.storage import ObjectStore
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.names import shown_name
from service.core.uploads.pairs import files_to_send, read_normals, read_pairs, shared_reading
from service.core.uploads.reading import chosen_reading
from tests.service.api.uploads import Parts, part

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases"
LIMITS = ImageLimits()

SECONDS = 600.0
"""Long strips are decoded and encoded twice, on a machine that may be busy."""

pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason="the folder of reported inputs is not here"),
    pytest.mark.timeout(2 * SECONDS),
]


@dataclass(frozen=True, slots=True)
class Case:
    """An input and what is right.

    Attributes:
        masks: folder of the masks, relative to that of the case; that of the images is before it.
        told: phrases of the notes, or of the refusal.
        areas: pixels of the masks, in the order of the images' names; empty if it must be refused.
        normals: folder of the normals, relative to the folder of all cases.
        fields: the user's choices.
    """

    images: str
    masks: str
    told: tuple[str, ...] = ()
    areas: tuple[int, ...] = (184,) * 3
    normals: str | None = None
    fields: Mapping[str, str] | None = None


def of(name: str, *told: str, **more: object) -> Case:
    return Case(f"{name}/images", f"{name}/masks", told, **more)  # type: ignore[arg-type]


_BORDER = "1 used as defect, 255 ignored as a border"
_JOINED = "joined, because they belong to the same image 000.png"
_TWO = (286, 368, 368)
_ONE_FOLDER = "distinguished by their names"

READ = {
    "01 a second picture inside": of("01", "contains several pictures, the first is used"),
    "02 names that are no UTF-8": of("02"),
    "03a 10 bits": of("03/a", "10-bit grey, 0..1023"),
    "03a 10 bits, chosen": of("03/a", "12-bit grey, 0..4095", fields={"brightness": "0:4095"}),
    "03a normals of 14 bits": of("03/a", "14-bit grey, 0..16383", "levels remain", normals="03/good14"),
    "03b 14 bits": of("03/b", "14-bit grey, 0..16383", normals="03/good14"),
    "03c one is dark": of("03/c", "12-bit grey, 0..4095", "image 000.tif: only 7 of its 76 levels remain"),
    "03d colours": of("03/d", "12 bits per channel, 0..4095"),
    "03e a narrow band": of("03/e", "16-bit grey, 21341..22035"),
    "04a orientation 3": of("04/a", "EXIF orientation not applied"),
    "04b orientation 6, square": of("04/b", "EXIF orientation not applied"),
    "05 broken EXIF": of("05", "image 2.png: a broken EXIF block was ignored"),
    "06a a border to ignore": of("06/a", _BORDER),
    "06b one of two classes": of("06/b", "70 used as defect", fields={"mask_values": "70"}, areas=(102, 184, 184)),
    "06d ids of a palette": of("06/d", _BORDER),
    "07a one mask per region": of("07/a", _JOINED, areas=_TWO),
    "07b two names of masks": of("07/b", _JOINED, areas=_TWO),
    "07c Label Studio's names": of("07/c", _JOINED, "in the order of Label Studio's tasks", areas=_TWO),
    "08c MVTec": Case("08/c/test/crack", "08/c/ground_truth/crack", normals="08/c/test/good"),
    "09a BMP without alpha": of("09/a", "alpha channel ignored"),
    "09b BGRA": of("09/b", "alpha channel ignored", normals="09/good"),
    "09c of different sizes": of("09/c", "alpha channel ignored"),
    "10 white is zero, 16 bits": of("10/w16", "16-bit grey, 0..65535"),
    "10 white is zero, 8 bits": of("10/w8"),
    "11a specks": of("11/a", "10 stray pixels beside the defect removed", areas=(184,) * 4, normals="11/good"),
    "11b no specks": of("11/b", areas=(184,) * 4),
    "11c specks far away": of("11/c", "9 stray pixels beside the defect removed"),
    "12a a pit in a strip": of("12/a", areas=(16,) * 3),
    "12b a scratch along a strip": of("12/b", areas=(4500,) * 3),
    "12c 500 x 20000": of("12/c", areas=(300,) * 3),
    "14 names": of("14", areas=(184,) * 5, normals="14/good"),
    "15 a Mac's twins": of("15", "left out of the images: a hidden or system file"),
    "16a KolektorSDD2": Case("16/a", "16/a"),
    "16b KolektorSDD": Case("16/b", "16/b"),
}
REFUSED = {
    "06b two classes": of(
        "06/b", "several classes: 70 (in 3 of 3), 210 (in 3 of 3)", "--mask-values 70", "mask_values"
    ),
    "06c sparse ids": of("06/c", "several classes: 120 (in 3 of 3), 240 (in 3 of 3)"),
    "08a labelme": of("08/a", "000.json", "annotation: export masks as PNG"),
    "08b YOLO": of("08/b", "000.txt"),
    "08d arrays": of("08/d", "000.npy", "array: save it as PNG"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the cases, in which the scripts of the case that is asked for have run."""
    pytest.importorskip("cv2")
    root = tmp_path_factory.mktemp("cases")
    shutil.copy(CASES / "common.py", root)

    def make(number: str) -> Path:
        folder = root / number
        if folder.is_dir():
            return root
        folder.mkdir()
        before, path = Path.cwd(), [*sys.path]
        os.chdir(folder)
        try:
            for script in sorted((CASES / number).glob("*.py")):
                shutil.copy(script, folder)
                runpy.run_path(script.name)
        finally:
            os.chdir(before)
            sys.path[:] = path
            sys.modules.pop("common", None)
        return root

    return make


def sent(kind: str, folder: Path | None) -> Parts:
    """All files of a folder as a browser sends them; names are sent as the client does."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    return [part(kind, shown_name(path.name), path.read_bytes()) for path in files]


def folders(case: Case, made: Callable[[str], Path]) -> tuple[Path, Path, Path | None]:
    root = made(case.images[:2])
    if case.normals:
        made(case.normals[:2])
    return root / case.images, root / case.masks, root / case.normals if case.normals else None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_read_right_and_alike_by_library_and_api(
    name: str, made: Callable[[str], Path], client: httpx2.Client, storage: ObjectStore
) -> None:
    case = READ[name]
    images, masks, normals = folders(case, made)
    chosen = {"brightness": None, "mask_values": None} | dict(case.fields or {})
    reading = shared_reading(chosen_reading(**chosen), images, masks, normals, LIMITS)
    found = read_pairs(images, masks, LIMITS, reading)
    assert tuple(int(pair.mask.sum()) for pair in found.pairs) == case.areas
    for pair in found.pairs:
        least = 3 if "dark" in name or "chosen" in name or "normals of" in name else 20
        assert pair.image[pair.mask].mean() + least < pair.image[~pair.mask].mean()
    for phrase in case.told:
        assert any(phrase in note for note in found.notes), found.notes

    parts = sent("images", images) + sent("masks", masks) + sent("normals", normals)
    form = {"name": "scratches", **(case.fields or {})}
    answer = client.post("/v1/adapters", data=form, files=parts, timeout=SECONDS)
    assert answer.status_code == 202, answer.text
    listing = json.loads(storage.get(object_keys.inputs(answer.json()["id"])))
    for phrase in case.told:
        assert any(phrase in note for note in listing["notes"]), listing["notes"]
    assert len(listing[Upload.IMAGES]) == len(listing[Upload.MASKS]) == len(found.pairs)
    for pair, image, mask in zip(found.pairs, listing[Upload.IMAGES], listing[Upload.MASKS], strict=True):
        assert image["name"] == pair.name
        assert np.array_equal(stored(storage, image["key"]), pair.image)
        assert np.array_equal(stored(storage, mask["key"]) == 255, pair.mask)
    good = read_normals(normals, LIMITS, reading).images if normals else []
    for normal, entry in zip(good, listing[Upload.NORMALS], strict=True):
        assert np.array_equal(stored(storage, entry["key"]), normal.image)


def stored(storage: ObjectStore, key: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(storage.get(key))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_would_be_right(
    name: str, made: Callable[[str], Path], client: httpx2.Client, storage: ObjectStore
) -> None:
    case = REFUSED[name]
    images, masks, _ = folders(case, made)
    with pytest.raises(UsageError) as caught:
        read_pairs(images, masks, LIMITS)
    before = {entry.key for entry in storage.list("")}
    answer = client.post(
        "/v1/adapters", data={"name": "scratches"}, files=sent("images", images) + sent("masks", masks)
    )
    assert answer.status_code == 422
    assert {entry.key for entry in storage.list("")} == before
    details = "\n".join(error["detail"] for error in answer.json()["errors"])
    for phrase in case.told:
        assert phrase in "\n".join(caught.value.problems)
        assert phrase in details


@pytest.mark.filterwarnings("ignore")
def test_an_mvtec_root_is_understood(made: Callable[[str], Path]) -> None:
    root = made("08") / "08" / "c"
    assert [int(pair.mask.sum()) for pair in read_pairs(root, root, LIMITS).pairs] == [184] * 3
    images, masks, notes = files_to_send(root, root, LIMITS)
    assert ([*images], [*masks]) == (
        ["000.png", "001.png", "002.png"],
        ["000_mask.png", "001_mask.png", "002_mask.png"],
    )
    assert any("folder good: left out because it has no masks" in note for note in notes)


@pytest.mark.filterwarnings("ignore")
def test_links_and_pointers_are_said_to_be_such(made: Callable[[str], Path], client: httpx2.Client) -> None:
    folder = made("19") / "19"
    with pytest.raises(UsageError) as caught:
        read_pairs(folder / "images", folder / "masks", LIMITS)
    told = "\n".join(caught.value.problems)
    assert "image 2.png is a link to ../.git/annex/objects/xx/missing, which does not exist" in told
    assert "image 3.png is a Git LFS pointer" in told
    with pytest.raises(UsageError, match=r"normal image 0\.png is a link to /gone/0\.png"):
        read_normals(folder / "good", LIMITS)
    # A link that leads nowhere cannot be sent.
    parts = sent("images", folder / "images") + sent("masks", folder / "masks")
    answer = client.post("/v1/adapters", data={"name": "scratches"}, files=parts)
    assert answer.status_code == 422
    details = [error["detail"] for error in answer.json()["errors"]]
    assert any("image 3.png is a Git LFS pointer" in detail for detail in details)
    assert any(detail.startswith("1 mask without an image: 2.png") for detail in details)
