"""Pictures that are held out: stored apart from those that are trained on, refused where they are the same."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from service.cli.files import held_out_pictures, pair_pictures, typed_pictures
from service.client import Client
from service.core import api_keys, object_keys
from service.core.errors import UsageError
from service.core.object_keys import HELD_OUT, TRAINING_UPLOADS, Kind, Upload
from service.core.records.store import RecordStore
from service.core.storage import ObjectStore
from tests.service.api.conftest import trained
from tests.service.api.uploads import (
    Parts,
    encoded,
    held_out,
    mask,
    normals,
    pairs,
    part,
    picture,
    sixteen_bit,
    typed,
    typed_held_out,
    typed_pairs,
)

FORM = {"name": "scratches"}


def post(client: httpx2.Client, parts: Parts, **headers: str) -> httpx2.Response:
    return client.post("/v1/adapters", data=FORM, files=parts, headers=headers)


def test_every_kind_is_trained_on_or_held_out() -> None:
    assert {*TRAINING_UPLOADS, *HELD_OUT.values()} == set(Upload)


def test_what_is_held_out_is_stored_apart_and_counted(client: httpx2.Client, storage: ObjectStore) -> None:
    answer = post(client, pairs() + held_out(1))
    assert answer.status_code == 202, answer.text
    adapter = answer.json()
    assert adapter["request"]["held_out"] == {"pairs": 1, "normals": 1}
    listing = json.loads(storage.get(object_keys.inputs(adapter["id"])))
    assert [entry["name"] for entry in listing["images"]] == ["tile_0", "tile_1"]
    assert [entry["name"] for entry in listing["held_out_images"]] == ["out_0"]
    assert listing["held_out_masks"][0]["key"].endswith("/inputs/held_out_masks/000.png")
    listed = sum(entry["bytes"] for kind in Upload for entry in listing[kind])
    assert adapter["stored_bytes"] == listed
    assert "held_out" not in post(client, pairs()).json()["request"]


MISTAKES: dict[str, tuple[Parts, str, set[str]]] = {
    "no picture": (
        [part("held_out_images", "out.png", b"text"), part("held_out_masks", "out.png", encoded(mask()))],
        "held out: image out.png is not a PNG",
        {"/held_out_images/0"},
    ),
    "without a mask": (
        [*held_out(), part("held_out_images", "lonely.png", encoded(picture(9)))],
        "held out: 1 image without a mask: lonely.png",
        {"/held_out_images/1"},
    ),
    "normals alone": ([held_out()[-1]], "held out: 0 pairs of image and mask: at least 1 is needed", set()),
    "a photograph that is trained on": (
        [
            *held_out(1),
            *(
                part(f"held_out_{kind}", name, content)
                for kind, name, content in (
                    ("images", "again.png", encoded(picture(1), compress_level=0)),
                    ("masks", "again.png", encoded(mask())),
                )
            ),
        ],
        "again.png of the held_out_images is the same picture as tile_1.png of the images",
        {"/held_out_images/1", "/images/1"},
    ),
    "a normal that is trained on": (
        [part("normals", "good.png", encoded(picture(99))), *held_out(1)],
        "fine.png of the held_out_normals is the same picture as good.png of the normals",
        {"/held_out_normals/0", "/normals/0"},
    ),
    "a defect as a normal": (
        [*held_out(1), part("held_out_normals", "same.png", encoded(picture(100)))],
        "same.png of the held_out_normals is the same picture as out_0.png of the held_out_images",
        {"/held_out_normals/1", "/held_out_images/0"},
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_among_them_is_refused_by_name(client: httpx2.Client, case: str) -> None:
    parts, phrase, files = MISTAKES[case]
    answer = post(client, pairs() + parts)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert phrase in error["detail"]
    assert set(error.get("files", [])) == files


def test_they_do_not_decide_how_bright_the_others_are(client: httpx2.Client, storage: ObjectStore) -> None:
    dim = picture(7).convert("L").point(lambda level: level * 8, "I").convert("I;16")
    deep = [part("images", "deep.png", encoded(dim)), part("masks", "deep.png", encoded(mask()))]
    alone = post(client, pairs() + deep)
    bright = part("held_out_images", "bright.png", sixteen_bit())
    beside = post(client, [*pairs(), *deep, bright, part("held_out_masks", "bright.png", encoded(mask()))])
    first, second = (
        storage.get(object_keys.upload(answer.json()["id"], Upload.IMAGES, 0)) for answer in (alone, beside)
    )
    assert first == second


def test_they_belong_to_what_an_idempotency_key_stands_for(client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "held-out"}
    first = post(client, pairs() + held_out(), **key)
    assert post(client, held_out() + pairs(), **key).json()["id"] == first.json()["id"]
    assert post(client, pairs(), **key).json()["code"] == "idempotency_key_reused"


def test_an_evaluation_needs_an_adapter_with_held_out_pairs(client: httpx2.Client, store: RecordStore) -> None:
    without, with_them = trained(client, store), trained(client, store, held_out(1))
    asked = {"num_pairs": 3, "evaluation": {"seeds": 1}}
    refused = client.post("/v1/jobs", json={"adapter_id": without, **asked})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    [error] = refused.json()["errors"]
    assert error["pointer"] == "/evaluation"
    assert "held_out_images[]" in error["detail"]
    answer = client.post("/v1/jobs", json={"adapter_id": with_them, **asked})
    assert answer.status_code == 202, answer.text
    assert answer.json()["request"]["evaluation"] == {"profile": "quick", "seeds": 1}
    assert answer.json()["verdict"] is None
    missing = {"adapter_id": object_keys.new_id(Kind.ADAPTER), **asked}
    assert client.post("/v1/jobs", json=missing).json()["code"] == "adapter_not_found"


TYPED_FORM = {"name": "tiles", "method": "anomalydiffusion"}


def test_their_types_are_stored_and_counted(client: httpx2.Client, storage: ObjectStore) -> None:
    parts = [*typed_pairs("crack", "break"), *typed_held_out("crack", "break"), *normals()]
    answer = client.post("/v1/adapters", data=TYPED_FORM, files=parts)
    assert answer.status_code == 202, answer.text
    asked = answer.json()["request"]
    assert asked["held_out"] == {
        "pairs": 2,
        "normals": 0,
        "defects": [{"name": "break", "pairs": 1}, {"name": "crack", "pairs": 1}],
    }
    assert asked["defects"] == [{"name": "break", "pairs": 2}, {"name": "crack", "pairs": 2}]
    listed = json.loads(storage.get(object_keys.inputs(answer.json()["id"])))
    for kind in ("held_out_images", "held_out_masks"):
        assert [(each["defect"], each["name"]) for each in listed[kind]] == [("break", "a"), ("crack", "a")]


WRONG_TYPES: dict[str, tuple[Parts, str, str]] = {
    "not trained on": (
        typed_held_out("crack", "break", "dent"),
        "/held_out_images/dent",
        "nothing to train on shows dent",
    ),
    "one is missing": (typed_held_out("crack"), "/held_out_images", "no photograph of break is held out"),
    "some name theirs": (
        [*typed_held_out("crack", "break"), *held_out(1, 200)],
        "/held_out_images",
        "some held-out files name a defect type and some do not",
    ),
    "no picture": (
        [*typed_held_out("break"), typed("held_out_images", "crack", "x.png", b"text"), *typed_held_out("crack")[1:]],
        "/held_out_images/crack/0",
        "held out, crack: image x.png is not a PNG",
    ),
    "trained on": (
        [*typed_held_out("crack", offset=0), *typed_held_out("break")],
        "/held_out_images/crack/0",
        "is the same picture as 000.png of the images",
    ),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_a_mistake_among_their_types_is_refused_by_name(client: httpx2.Client, case: str) -> None:
    parts, place, phrase = WRONG_TYPES[case]
    answer = client.post("/v1/adapters", data=TYPED_FORM, files=[*typed_pairs("crack", "break"), *normals(), *parts])
    assert answer.status_code == 422
    told = [error["detail"] for error in answer.json()["errors"] if error.get("pointer") == place]
    assert any(phrase in detail for detail in told), answer.text


def test_client_and_commands_send_their_types(address: str, redis: Redis, tmp_path: Path) -> None:
    parts = [*typed_pairs("crack", "break"), *typed_held_out("crack", "break"), *normals()]
    for name, (file, content, _) in parts:
        folder = tmp_path / name.removesuffix("[]").replace("[", "/").removesuffix("]")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    types = {name: (tmp_path / "images" / name, tmp_path / "masks" / name) for name in ("crack", "break")}
    images, masks, _ = typed_pictures(types)
    kept, _ = held_out_pictures(tmp_path / "held_out_images", tmp_path / "held_out_masks", None, list(types))
    good = [*(tmp_path / "normals").iterdir()]
    with Client(address, api_keys.create_key(redis, "client")) as client:
        adapter = client.create_adapter(images, masks, good, held_out=kept, **TYPED_FORM)
    found = (adapter.model_extra or {})["request"]["held_out"]["defects"]
    assert found == [{"name": "break", "pairs": 1}, {"name": "crack", "pairs": 1}]


def test_the_description_says_what_counts_as_a_part(client: httpx2.Client) -> None:
    body = client.get("/openapi.json").json()["paths"]["/v1/adapters"]["post"]["requestBody"]
    schema = body["content"]["multipart/form-data"]["schema"]
    told = schema["properties"]["held_out_images[]"]["description"]
    assert "Each counts as one part" in told
    assert "without the names all types are measured together" in told
    assert any(pattern.startswith("^held_out_images") for pattern in schema["patternProperties"])


def test_client_and_commands_send_them(address: str, redis: Redis, tmp_path: Path) -> None:
    for name, (file, content, _) in pairs() + held_out(2):
        folder = tmp_path / name.removesuffix("[]")
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    kept, _ = held_out_pictures(*(tmp_path / kind for kind in HELD_OUT.values()))
    images, masks, _ = pair_pictures(tmp_path / "images", tmp_path / "masks")
    with Client(address, api_keys.create_key(redis, "client")) as client:
        adapter = client.create_adapter(images, masks, held_out=kept, name="scratches")
    assert (adapter.model_extra or {})["request"]["held_out"] == {"pairs": 2, "normals": 1}
    assert held_out_pictures(None, None, None) == (None, [])
    with pytest.raises(UsageError, match="both --held-out-images and --held-out-masks"):
        held_out_pictures(tmp_path / "held_out_images", None, None)
