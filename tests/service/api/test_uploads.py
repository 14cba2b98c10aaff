from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from redis import Redis

from service.cli.files import pair_pictures
from service.client import Client
from service.core import api_keys, object_keys
from service.core.object_keys import Upload
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api import uploads
from tests.service.api.conftest import serving
from tests.service.api.uploads import (
    encoded,
    held_out,
    mask,
    normals,
    pairs,
    part,
    picture,
    typed,
    typed_pairs,
    with_last,
)

FORM = {"name": "scratches", "defect": "scratch", "object": "tile"}


def post(client: httpx2.Client, parts: uploads.Parts, **fields: str) -> httpx2.Response:
    return client.post("/v1/adapters", data={**FORM, **fields}, files=parts)


def all_objects(storage: ObjectStore) -> set[str]:
    return {entry.key for entry in storage.list("")}


BAD_FILES = {
    "a bomb": ("images", uploads.bomb(), "8000×8000 = 64.0 megapixels: at most"),
    "truncated": ("images", encoded(picture(2))[:-600], "truncated or broken"),
    "only a beginning": ("images", encoded(picture(2))[:20], "truncated or broken"),
    "animated": ("images", uploads.animated(), "animated"),
    "no picture": ("images", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a PNG, JPEG, BMP, TIFF or WebP"),
    "a GIF by another name": ("images", encoded(picture(2), "GIF"), "is not a PNG, JPEG, BMP, TIFF or WebP"),
    "empty": ("images", b"", "empty file"),
    "tiny": ("images", encoded(picture(2, 4)), "at least 8"),
    "of another size than its mask": ("images", encoded(picture(2, 40)), "must have the same size"),
    "a copy": ("images", encoded(picture(0)), "the same picture"),
    "an empty mask": ("masks", encoded(Image.new("L", (32, 32))), "empty: the defect must be white"),
    "a full mask": ("masks", encoded(Image.new("L", (32, 32), 255)), "full"),
    "a photograph as mask": ("masks", encoded(picture(9)), "colours"),
    "a truncated mask": ("masks", encoded(mask())[:-20], "truncated or broken"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_by_name_and_nothing_is_stored(
    client: httpx2.Client, storage: ObjectStore, case: str
) -> None:
    kind, content, phrase = BAD_FILES[case]
    before = all_objects(storage)
    answer = post(client, with_last(kind, content))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    [error] = [error for error in answer.json()["errors"] if phrase in error["detail"]]
    assert "tile_2.png" in error["detail"]
    assert f"/{kind}/2" in error["files"]
    assert all_objects(storage) <= before


def test_every_faulty_file_and_field_is_named_at_once(client: httpx2.Client, storage: ObjectStore) -> None:
    before = all_objects(storage)
    parts = [
        part("images", "a.png", encoded(picture(1))[:-500]),
        part("images", "b.png", b"GIF89a"),
        part("images", "c.png", encoded(picture(3))),
        part("masks", "a.png", encoded(mask())),
        part("masks", "b.png", encoded(Image.new("L", (32, 32)))),
        part("masks", "d.png", encoded(mask())),
    ]
    answer = post(client, parts, steps="many", rank="0", colour="red")
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    pointers = {error.get("pointer") for error in errors}
    assert {"/steps", "/rank", "/colour"} <= pointers
    details = " ".join(error["detail"] for error in errors)
    for phrase in ("image a.png is truncated", "image b.png is not", "mask b.png is empty", "without a mask: c.png"):
        assert phrase in details
    assert "without an image: d.png" in details
    assert {"/images/0", "/images/1", "/masks/1", "/images/2", "/masks/2"} <= pointers
    assert all_objects(storage) <= before


def test_an_option_that_the_method_does_not_have_is_refused_by_name(client: httpx2.Client) -> None:
    parts = [*pairs(), *normals()]
    answer = post(client, parts, method="copy-paste", lr="0.1", rank="4", flip_vertical="false")
    assert answer.status_code == 422
    errors = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert set(errors) == {"/lr", "/rank"}
    assert errors["/lr"].startswith("lr is an option of dualanodiff and anomalydiffusion, not of copy-paste; that has")
    accepted = post(client, parts, method="copy-paste", flip_vertical="false", seed="2").json()
    assert accepted["request"]["method"] == "copy-paste"
    assert {name for name, value in accepted["request"]["training"].items() if value is not None} == {
        *("flip_vertical", "seed")
    }
    assert "lr" not in accepted["request"]["training"]
    assert "lr" in post(client, pairs()).json()["request"]["training"]


def test_a_method_that_needs_good_parts_is_refused_without_any(client: httpx2.Client, storage: ObjectStore) -> None:
    before = all_objects(storage)
    for method in ("anomalydiffusion", "copy-paste", "perlin"):
        answer = post(client, [*with_last("images", b""), *held_out()], method=method, seed="one")
        assert answer.status_code == 422
        told = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
        assert {"/normals", "/seed", "/images/2"} <= set(told)
        assert told["/normals"] == (
            f"{method} makes every pair on a photograph of a good part, and none was sent: send at least one as "
            "normals[], better a few dozen"
        )
        broken = post(client, [*pairs(), part("normals", "good.png", b"text")], method=method)
        assert [error["pointer"] for error in broken.json()["errors"]] == ["/normals/0"]
    assert all_objects(storage) <= before
    document = client.get("/openapi.json").json()["paths"]["/v1/adapters"]["post"]
    form = document["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    needing = "At least one is needed with anomalydiffusion, copy-paste, perlin, whose jobs"
    assert needing in form["normals[]"]["description"]
    needs = {each["name"]: each["needs_normals"] for each in client.get("/v1/options").json()["methods"]}
    assert needs == {"dualanodiff": False, "anomalydiffusion": True, "copy-paste": True, "perlin": True}


def refused(client: httpx2.Client, parts: uploads.Parts) -> list[dict[str, Any]]:
    answer = post(client, parts)
    assert answer.status_code == 422, answer.text
    errors: list[dict[str, Any]] = answer.json()["errors"]
    return errors


def test_every_one_of_many_files_is_named(client: httpx2.Client) -> None:
    """Up to the most that an upload may hold."""
    images = [part("images", f"i{index:02}.png", encoded(picture(index))) for index in range(64)]
    masks = [part("masks", f"m{index:02}.png", encoded(mask())) for index in range(64)]
    normals = [part("normals", f"n{index:03}.png", b"text") for index in range(200)]
    errors = refused(client, images + masks + normals)
    faulty = {pointer for error in errors for pointer in error.get("files", [])}
    assert faulty == {
        f"/{kind}/{index}"
        for kind, count in (("images", 64), ("masks", 64), ("normals", 200))
        for index in range(count)
    }
    told = " ".join(error["detail"] for error in errors)
    assert all(name in told for _, (name, _, _) in images + masks + normals)


def test_a_pointer_leads_to_the_file_at_fault_whatever_others_are_called(client: httpx2.Client) -> None:
    names = ["a.png", "image a.png", "b.png"]
    parts = [part("images", name, encoded(picture(index))) for index, name in enumerate(names)]
    parts[1] = part("images", names[1], b"text")
    errors = refused(client, [*parts, *(part("masks", name, encoded(mask())) for name in names)])
    assert [(error["pointer"], error["files"]) for error in errors] == [("/images/1", ["/images/1"])]


def test_a_file_that_does_not_count_is_named_where_it_is_the_only_one(client: httpx2.Client) -> None:
    errors = refused(client, [*pairs(), part("normals", ".hidden.png", encoded(picture(5)))])
    assert [error["pointer"] for error in errors if ".hidden.png" in error["detail"]] == ["/normals/0"]


ACCEPTED = {
    "16-bit": ("images", uploads.sixteen_bit(), "16-bit grey, 0..65535 scaled to 8 bits"),
    "a palette": ("images", encoded(picture(2).quantize(16)), "palette colours"),
    "transparency": ("images", encoded(picture(2).convert("RGBA")), "opaque alpha channel removed"),
    "a coloured mask": (
        "masks",
        encoded(Image.merge("RGB", [mask(2), mask(2).point(lambda _: 0)] * 1 + [mask(2)])),
        "coloured",
    ),
    "a mask of labels": ("masks", encoded(mask(2).point(lambda level: level // 255)), None),
    "a mask with grey edges": ("masks", encoded(mask(2).resize((16, 16)).resize((32, 32))), "thresholded at 128"),
    "BMP": ("images", encoded(picture(2), "BMP"), None),
    "TIFF": ("images", encoded(picture(2), "TIFF"), None),
    "WebP": ("images", encoded(picture(2), "WEBP"), None),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_can_be_converted_is_accepted_and_the_conversion_told(
    client: httpx2.Client, storage: ObjectStore, case: str
) -> None:
    kind, content, note = ACCEPTED[case]
    answer = post(client, with_last(kind, content))
    assert answer.status_code == 202, answer.text
    notes = answer.json()["notes"]
    assert any(note in line and "tile_2.png" in line for line in notes) if note else notes == []
    what = Upload(kind)
    with Image.open(BytesIO(storage.get(object_keys.upload(answer.json()["id"], what, 2)))) as stored:
        assert (stored.format, stored.mode) == ("PNG", "RGB" if kind == "images" else "L")
        assert kind == "images" or {level for _, level in stored.getcolors() or ()} == {0, 255}


def test_only_pixels_are_stored(client: httpx2.Client, storage: ObjectStore) -> None:
    """EXIF is applied and dropped; what was appended to the picture (a zip, a script) stays behind."""
    polyglot = uploads.turned() + b"PK\x03\x04<script>alert(1)</script>"
    parts = with_last("images", polyglot)
    parts[-1] = part("masks", "tile_2.png", encoded(mask().crop((0, 0, 24, 32))))
    answer = post(client, parts)
    assert answer.status_code == 202, answer.text
    assert any("EXIF" in note for note in answer.json()["notes"])
    stored = storage.get(object_keys.upload(answer.json()["id"], Upload.IMAGES, 2))
    assert b"script" not in stored
    assert b"secret" not in stored
    with Image.open(BytesIO(stored)) as image:
        assert image.size == (24, 32)
        assert not image.getexif()


def test_uploads_are_stored_under_numbers_with_their_list(client: httpx2.Client, storage: ObjectStore) -> None:
    normal = part("normals", "..\\..\\good.png", encoded(picture(50)))
    parts = [
        *(part("images", f"../../etc/{name}.png", encoded(picture(index))) for index, name in enumerate("ba")),
        *(part("masks", f"{name}_mask.png", encoded(mask(index))) for index, name in enumerate("ba")),
        normal,
    ]
    answer = post(client, parts, steps="7", bcm="true", lr="1e-4", seed="5")
    assert answer.status_code == 202, answer.text
    adapter = answer.json()
    assert (
        adapter["request"]["training"] | {"steps": 7, "bcm": True, "lr": 1e-4, "seed": 5}
        == adapter["request"]["training"]
    )
    prefix = object_keys.prefix(adapter["id"])
    stored = sorted(key.removeprefix(prefix) for key in all_objects(storage) if key.startswith(prefix))
    assert stored == [
        "inputs.json",
        "inputs/images/000.png",
        "inputs/images/001.png",
        "inputs/masks/000.png",
        "inputs/masks/001.png",
        "inputs/normals/000.png",
    ]
    listing = json.loads(storage.get(object_keys.inputs(adapter["id"])))
    assert [entry["name"] for entry in listing["images"]] == ["a", "b"]
    assert [entry["name"] for entry in listing["normals"]] == ["good"]
    assert listing["masks"][1]["key"] == f"{prefix}inputs/masks/001.png"


@pytest.fixture(scope="module")
def strict(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """An API whose limits are low."""
    limits = {"max_pairs": 4, "max_normals": 1, "max_held_out": 1, "max_held_out_normals": 1}
    limits |= {"max_file_bytes": 10_000, "max_body_bytes": 60_000}
    chosen = settings.model_copy(update=limits)
    with serving(chosen) as url:
        yield url, chosen


TOO_MUCH = {
    "too many images": (413, [part("images", f"{index}.png", encoded(picture(index))) for index in range(5)]),
    "too many normals": (
        413,
        [*pairs(), *(part("normals", f"{index}.png", encoded(picture(index))) for index in range(2))],
    ),
    "too many held-out pairs": (413, [*pairs(), *held_out(2)]),
    "too many held-out normals": (
        413,
        [*pairs(), *held_out(), part("held_out_normals", "other.png", encoded(picture(8)))],
    ),
    "too large a held-out file": (422, [*pairs(), part("held_out_normals", "large.png", encoded(picture(7, 64)))]),
    "too large a file": (422, [*pairs(), part("normals", "large.png", encoded(picture(7, 64)))]),
    "too large a body": (413, [*pairs(), part("normals", "large.png", bytes(70_000))]),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_limits_hold(
    new_client: Callable[..., httpx2.Client], strict: tuple[str, Settings], storage: ObjectStore, case: str
) -> None:
    status, parts = TOO_MUCH[case]
    before = all_objects(storage)
    answer = post(new_client(strict[0]), parts)
    assert (answer.status_code, answer.json()["code"]) == (
        status,
        "content_too_large" if status == 413 else "invalid_request",
    )
    assert all_objects(storage) <= before


def test_an_endless_body_without_a_length_is_stopped(
    new_client: Callable[..., httpx2.Client], strict: tuple[str, Settings]
) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="images[]"; filename="a.png"\r\n\r\n'
        while sent < 50_000_000:
            sent += 20_000
            yield bytes(20_000)

    client = new_client(strict[0])
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        answer = client.post("/v1/adapters", content=endless(), headers=headers)
    except (httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):
        pass  # the connection was closed while we were still sending
    else:
        assert answer.status_code == 413
    assert sent < 50_000_000


MALFORMED = {
    "cut off": (400, b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nabc'),
    "no form": (400, b"hello"),
    "a part without a name": (400, b"--x\r\nContent-Type: text/plain\r\n\r\nabc\r\n--x--\r\n"),
    "not UTF-8": (422, b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\xfe\r\n--x--\r\n'),
    "a long field": (
        422,
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + b"a" * 5000 + b"\r\n--x--\r\n",
    ),
    "an unknown file": (
        422,
        b'--x\r\nContent-Disposition: form-data; name="script"; filename="a"\r\n\r\nb\r\n--x--\r\n',
    ),
    "nothing": (422, b"--x--\r\n"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_form_is_refused(client: httpx2.Client, case: str) -> None:
    status, body = MALFORMED[case]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/adapters", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_forms_are_taken(client: httpx2.Client) -> None:
    assert client.post("/v1/adapters", json={"name": "a"}).json()["code"] == "unsupported_media_type"


def test_two_files_of_one_name_are_refused(client: httpx2.Client) -> None:
    answer = post(client, [*pairs(), part("images", "tile_0.png", encoded(picture(60)))])
    assert answer.status_code == 422
    assert "two of the images are called tile_0.png" in answer.text


def test_the_spool_is_empty_afterwards(
    client: httpx2.Client, settings: Settings, new_client: Callable[..., httpx2.Client]
) -> None:
    assert settings.spool_dir is not None
    post(client, pairs())
    post(client, with_last("images", b"nothing"))
    assert list(settings.spool_dir.iterdir()) == []


FLOODS = {
    "a repeated field": b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n',
    "an empty field": b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\r\n',
    "a field that is not UTF-8": b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n',
    "an empty file": b'--x\r\nContent-Disposition: form-data; name="images"; filename=""\r\n\r\n\r\n',
}


@pytest.mark.parametrize("part", FLOODS)
def test_a_form_of_parts_without_number_is_refused(client: httpx2.Client, part: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/adapters", content=FLOODS[part] * 10_000 + b"--x--\r\n", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "more than" in answer.json()["detail"]


def names_of(storage: ObjectStore, adapter: str, kind: Upload) -> list[str]:
    return [entry["name"] for entry in json.loads(storage.get(object_keys.inputs(adapter)))[kind]]


def nested(folder: str, number: int) -> uploads.Parts:
    """A pair in KolektorSDD's form, whose files in every folder have the same names."""
    return [
        part("images", f"{folder}/kos0{number}/Part5.jpg", encoded(picture(number), "JPEG", quality=95)),
        part("masks", f"{folder}/kos0{number}/Part5_label.bmp", encoded(mask(number), "BMP")),
    ]


@pytest.mark.parametrize("folder", ["KolektorSDD", "C:\\data\\KolektorSDD"])
def test_files_of_one_name_are_told_apart_by_their_folders(
    client: httpx2.Client, storage: ObjectStore, folder: str
) -> None:
    answer = post(client, [file for number in range(3) for file in nested(folder, number)])
    assert answer.status_code == 202, answer.text
    for kind in (Upload.IMAGES, Upload.MASKS):
        assert names_of(storage, answer.json()["id"], kind) == ["kos00_Part5", "kos01_Part5", "kos02_Part5"]


def test_folders_do_not_count_where_names_differ(client: httpx2.Client, storage: ObjectStore) -> None:
    parts = [part(kind.removesuffix("[]"), f"deep/{kind}/{name}", data) for kind, (name, data, _) in pairs(2)]
    answer = post(client, parts)
    assert answer.status_code == 202, answer.text
    assert names_of(storage, answer.json()["id"], Upload.IMAGES) == ["tile_0", "tile_1"]


def test_the_client_sends_a_nested_data_set_as_the_library_reads_it(
    address: str, redis: Redis, storage: ObjectStore, tmp_path: Path
) -> None:
    empty = encoded(Image.new("L", (32, 32)), "BMP")
    good = [
        part("images", "x/kos00/Part6.jpg", encoded(picture(8), "JPEG")),
        part("masks", "x/kos00/Part6_label.bmp", empty),
    ]
    for _, (name, data, _) in [file for number in range(3) for file in nested("x", number)] + good:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    images, masks, notes = pair_pictures(tmp_path / "x", tmp_path / "x")
    assert [*images] == ["kos00_Part5.jpg", "kos01_Part5.jpg", "kos02_Part5.jpg"]
    assert any("kos00_Part6.jpg: left out because its mask is empty" in note for note in notes)
    with Client(address, api_keys.create_key(redis, "client")) as client:
        adapter = client.create_adapter(images, masks, name="scratches")
    assert names_of(storage, adapter.id, Upload.MASKS) == ["kos00_Part5", "kos01_Part5", "kos02_Part5"]


def test_form_fields_say_what_values_mean(client: httpx2.Client, storage: ObjectStore) -> None:
    deep = np.full((32, 32), 1000, np.uint16)
    deep[8:16] = 3000
    images = [part("images", f"{n}.png", encoded(Image.fromarray(deep + np.uint16(n * 8)))) for n in range(2)]
    ids = np.zeros((32, 32), np.uint8)
    ids[8:16, 4:12], ids[8:16, 20:24], ids[20:22] = 1, 2, 255
    masks = [part("masks", f"{n}.png", encoded(Image.fromarray(ids))) for n in range(2)]
    refused = post(client, images + masks)
    assert refused.status_code == 422
    assert "several classes: 1 (in 2 of 2), 2 (in 2 of 2), beside 255 as a border" in refused.text
    answer = post(client, images + masks, brightness="0:4095", mask_values="1,2")
    assert answer.status_code == 202, answer.text
    listing = json.loads(storage.get(object_keys.inputs(answer.json()["id"])))
    assert any("0..4095 scaled to 8 bits" in note for note in listing["notes"])
    assert listing["brightness"] == [0, 4095]
    shown = np.asarray(Image.open(BytesIO(storage.get(listing["images"][0]["key"]))))
    assert {*np.unique(shown)} == {1000 * 256 // 4096, 3000 * 256 // 4096}
    drawn = np.asarray(Image.open(BytesIO(storage.get(listing["masks"][0]["key"]))))
    assert np.array_equal(drawn == 255, (ids == 1) | (ids == 2))


def test_a_range_of_brightness_is_kept_only_where_it_was_used(client: httpx2.Client, storage: ObjectStore) -> None:
    answer = post(client, pairs(), brightness="0:4095")
    assert json.loads(storage.get(object_keys.inputs(answer.json()["id"])))["brightness"] is None


@pytest.mark.parametrize(("name", "value"), [("brightness", "4095"), ("mask_values", "white"), ("mask_values", "0")])
def test_a_field_that_cannot_be_understood_is_named(client: httpx2.Client, name: str, value: str) -> None:
    answer = post(client, pairs(), **{name: value})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}"]


def test_what_was_left_out_is_named_also_when_the_rest_is_refused(client: httpx2.Client) -> None:
    answer = post(client, [*with_last("images", b""), part("images", "._tile_0.png", b"\0\5\x16\7")])
    details = [error["detail"] for error in answer.json()["errors"]]
    assert "image tile_2.png is an empty file (0 bytes)" in details
    assert "left out of the images: ._tile_0.png (a hidden or system file)" in details


def test_the_types_of_an_upload_are_stored_and_shown(client: httpx2.Client, storage: ObjectStore) -> None:
    parts = [*typed_pairs("crack", "break"), *normals()]
    answer = client.post("/v1/adapters", data={"name": "tiles", "method": "anomalydiffusion"}, files=parts)
    assert answer.status_code == 202, answer.text
    adapter = answer.json()
    assert (adapter["method"], adapter["defects"]) == ("anomalydiffusion", ["break", "crack"])
    assert adapter["request"]["defects"] == [{"name": "break", "pairs": 2}, {"name": "crack", "pairs": 2}]
    assert adapter["request"]["defect"] == "break, crack"
    listed = json.loads(storage.get(object_keys.inputs(adapter["id"])))
    for kind in ("images", "masks"):
        assert [(each["defect"], each["name"]) for each in listed[kind]] == [
            (defect, name) for defect in ("break", "crack") for name in ("000", "001")
        ]
        assert len({each["key"] for each in listed[kind]}) == 4
    assert "defect" not in listed["normals"][0]
    single = post(client, pairs()).json()
    assert (single["method"], single["defects"]) == ("dualanodiff", ["scratch"])


def test_one_named_type_is_for_every_method(client: httpx2.Client) -> None:
    answer = client.post("/v1/adapters", data={"name": "tiles"}, files=typed_pairs("Riss"))
    assert answer.status_code == 202, answer.text
    assert answer.json()["defects"] == ["Riss"]
    assert answer.json()["request"]["defect"] == "Riss"


def test_the_same_upload_in_another_order_is_the_same_request(client: httpx2.Client) -> None:
    def sent(parts: uploads.Parts) -> httpx2.Response:
        form = {"name": "tiles", "method": "anomalydiffusion"}
        return client.post("/v1/adapters", data=form, files=parts, headers={"Idempotency-Key": "typed"})

    parts = [*typed_pairs("crack", "break"), *normals()]
    first, again = sent(parts), sent(parts[::-1])
    assert first.json()["id"] == again.json()["id"]
    assert sent([*typed_pairs("crack", "dent"), *normals()]).json()["code"] == "idempotency_key_reused"


def test_mistakes_are_told_at_the_type_and_the_file(client: httpx2.Client, storage: ObjectStore) -> None:
    before = all_objects(storage)
    parts = typed_pairs("crack", "break")
    parts[6] = typed("images", "break", "001.png", encoded(picture(3))[:-500])
    parts.append(typed("masks", "crack", "002.png", encoded(mask())))
    errors = refused(client, [*parts, *pairs()])
    told = {error["pointer"]: error["detail"] for error in errors}
    assert told["/images/break/1"].startswith("break: image 001.png is truncated")
    assert told["/masks/crack/2"].startswith("crack: 1 mask without an image: 002.png")
    assert told["/defect"].startswith("defect names the one type of an upload, and the files name theirs, break, crack")
    assert told["/images"].startswith("some files name a defect type (break, crack) and some do not")
    assert told["/method"] == (
        "dualanodiff learns one defect type per adapter, and these are 2 (break, crack): choose anomalydiffusion, or "
        "send each type as an adapter of its own"
    )
    lonely = client.post("/v1/adapters", data={"name": "a"}, files=typed_pairs("crack")[:2])
    assert "crack: 1 pair of image and mask: at least 2 are needed" in lonely.text
    strange = client.post("/v1/adapters", data={"name": "a"}, files=typed_pairs("x" * 81))
    assert "is no name of a defect type" in strange.text
    unknown = client.post("/v1/adapters", data={"name": "a"}, files=[typed("normals", "crack", "a.png", b"x")])
    assert "unknown file field normals[crack]" in unknown.text
    assert all_objects(storage) <= before


def test_a_photograph_may_show_two_types_and_what_is_held_out_none_of_them(client: httpx2.Client) -> None:
    parts = [*typed_pairs("crack"), *typed_pairs("break"), *normals()]
    form = {"name": "tiles", "method": "anomalydiffusion"}
    assert client.post("/v1/adapters", data=form, files=parts).status_code == 202
    leaked = [part("held_out_images", "x.png", encoded(picture(1))), part("held_out_masks", "x.png", encoded(mask()))]
    answer = client.post("/v1/adapters", data=form, files=[*parts, *leaked])
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["files"] == ["/held_out_images/0", "/images/break/1"]
