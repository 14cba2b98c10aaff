"""Where a job's defects go: outlines and drawn masks are checked against the adapter's good parts, and stored apart."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from service.core import object_keys
from service.core.asked_places import decoded_mask
from service.core.records.store import RecordStore
from service.core.storage import ObjectStore
from tests.service.api.conftest import finished, succeeded, trained
from tests.service.api.uploads import encoded, mask, pairs, part, picture, typed_pairs

GOOD = [part("normals", "good_1.png", encoded(picture(50))), part("normals", "good_2.png", encoded(picture(51, 40)))]
TRIANGLE = [[0.1, 0.1], [0.9, 0.1], [0.5, 0.8]]
WIDE = [[0, 0], [0.94, 0], [0.94, 1], [0, 1]]
EVERYTHING = [[0, 0], [1, 0], [1, 1], [0, 1]]


def drawn(image: Image.Image) -> str:
    return base64.b64encode(encoded(image)).decode()


def typed_adapter(client: httpx2.Client, store: RecordStore) -> str:
    """The id of an adapter of cracks and breaks."""
    files = [*typed_pairs("crack", "break"), *GOOD]
    answer = client.post("/v1/adapters", data={"name": "tiles", "method": "anomalydiffusion"}, files=files)
    return succeeded(store, answer.json()["id"])


@pytest.fixture
def filler(client: httpx2.Client, store: RecordStore) -> str:
    return trained(client, store, GOOD, method="anomalydiffusion", defect="crack")


def test_masks_are_stored_with_the_job_and_the_record_keeps_their_hash(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore, filler: str
) -> None:
    places = {
        "placements": [{"mask": drawn(mask()), "normal": "good_1", "defect": "crack"}],
        "allowed": [{"polygon": EVERYTHING}, {"mask": drawn(mask(side=40)), "normal": "good_2.png"}],
        "forbidden": [{"mask": drawn(mask(20))}],
    }
    answer = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, **places})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    stored = json.loads(storage.get(object_keys.places(job["id"])))["masks"]
    kept = [
        job["request"][name][number]["mask"] for name, number in (("placements", 0), ("allowed", 1), ("forbidden", 0))
    ]
    assert set(kept) == set(stored)
    assert all(name.startswith("sha256:") for name in kept)
    assert job["stored_bytes"] > 0
    record = store.records.get(job["id"])
    assert record is not None
    assert drawn(mask()) not in json.dumps(record.request)
    plain = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, "allowed": [{"polygon": TRIANGLE}]})
    assert plain.json()["request"]["allowed"] == [{"polygon": TRIANGLE}]
    assert not list(storage.list(object_keys.prefix(plain.json()["id"])))


def test_a_good_part_is_also_named_by_its_mask(client: httpx2.Client, filler: str) -> None:
    allowed = [{"mask": drawn(mask(side=40)), "normal": "good_2_mask.png"}]
    asked = {"adapter_id": filler, "num_pairs": 2, "allowed": allowed}
    answer = client.post("/v1/jobs", json={**asked, "forbidden": [{"polygon": EVERYTHING, "normal": "good_1"}]})
    assert answer.status_code == 202, answer.text
    answer = client.post("/v1/jobs", json={**asked, "forbidden": [{"polygon": EVERYTHING, "normal": "good_2"}]})
    assert answer.json()["errors"][0]["detail"].startswith("no defect may lie on good_2:")


@pytest.mark.parametrize(
    ("name", "place", "where", "reason"),
    [
        (
            "allowed",
            {"polygon": TRIANGLE, "normal": "bad.png"},
            "normal",
            "no normal bad.png: there are good_1, good_2",
        ),
        ("allowed", {"mask": drawn(mask(side=36))}, "mask", "is 36 × 36 pixels, its image 32 × 32 or 40 × 40"),
        ("forbidden", {"mask": drawn(mask()), "normal": "good_2"}, "mask", "is 32 × 32 pixels, its image 40 × 40"),
        ("forbidden", {"mask": "bm8="}, "mask", "is not base64 of a PNG"),
        ("forbidden", {"mask": drawn(Image.new("L", (32, 32)))}, "mask", "is empty"),
        ("placements", {"polygon": TRIANGLE, "defect": "dent"}, "defect", "did not learn dent; it knows crack"),
    ],
)
def test_a_place_that_cannot_be_is_refused_at_its_field(
    client: httpx2.Client, filler: str, name: str, place: dict[str, Any], where: str, reason: str
) -> None:
    answer = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, name: [{"polygon": TRIANGLE}, place]})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == f"/{name}/1/{where}"
    assert reason in error["detail"]


def brush(colour: tuple[int, int, int]) -> Image.Image:
    """A stroke on a transparent layer."""
    layer = Image.new("RGBA", mask().size)
    layer.paste((*colour, 255), mask=mask())
    return layer


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{drawn(mask())}",
        drawn(brush((255, 0, 0))),
        drawn(brush((0, 0, 0))),
        drawn(mask().point(lambda level: level // 255)),
        drawn(mask().convert("1")),
    ],
    ids=["data URL", "red brush", "black brush", "0 and 1", "1 bit"],
)
def test_masks_are_read_as_uploaded_ones_are(
    client: httpx2.Client, storage: ObjectStore, filler: str, text: str
) -> None:
    asked = {"adapter_id": filler, "num_pairs": 2, "placements": [{"mask": text, "normal": "good_1"}]}
    answer = client.post("/v1/jobs", json=asked)
    assert answer.status_code == 202, answer.text
    (stored,) = json.loads(storage.get(object_keys.places(answer.json()["id"])))["masks"].values()
    assert np.array_equal(decoded_mask(stored), np.asarray(mask()) > 0)


def test_a_mask_of_several_classes_is_refused(client: httpx2.Client, filler: str) -> None:
    classes = mask().point(lambda level: level // 255)
    classes.paste(2, (18, 18, 24, 24))
    asked = {"adapter_id": filler, "num_pairs": 2, "placements": [{"mask": drawn(classes), "normal": "good_1"}]}
    (error,) = client.post("/v1/jobs", json=asked).json()["errors"]
    assert error["pointer"] == "/placements/0/mask"
    assert error["detail"].startswith("the mask of placements/0 has several values")


def test_malformed_places_are_refused(client: httpx2.Client, filler: str) -> None:
    for places, reason in (
        ({"allowed": [{"polygon": TRIANGLE, "mask": drawn(mask())}]}, "give either polygon or mask"),
        ({"allowed": [{}]}, "give either polygon or mask"),
        ({"forbidden": [{"polygon": TRIANGLE[:2]}]}, "polygon"),
        ({"allowed": [{"polygon": [[0.5, 0.5]] * 1000}] * 5}, "have 5000 corners together, at most 4000"),
    ):
        answer = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, **places})
        assert answer.status_code == 422
        assert reason in answer.text


def test_only_the_mistake_itself_is_told(client: httpx2.Client, filler: str) -> None:
    def told(corners: list[list[float]]) -> list[tuple[str, str]]:
        places = {"allowed": [{"polygon": corners}]}
        errors = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, **places}).json()["errors"]
        return [(error["pointer"], error["detail"]) for error in errors]

    assert told([[0, 0], [2, 0], [1, 1]]) == [("/allowed/0/polygon/1/0", "it must be at most 1")]
    assert told([[0, 0], [1, 1]]) == [("/allowed/0/polygon", "it must have at least 3 entries")]


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ({"num_pairs": 2}, "break"),
        ({"num_pairs": 1}, "break"),
        ({"defects": {"crack": 1, "break": 1}}, "break"),
        ({"defects": {"crack": 2}}, None),
    ],
)
def test_a_type_that_pairs_are_wanted_of_needs_a_mask(
    client: httpx2.Client, store: RecordStore, asked: dict[str, Any], lacking: str | None
) -> None:
    adapter = typed_adapter(client, store)
    placements = [{"polygon": TRIANGLE, "defect": "crack"}]
    answer = client.post("/v1/jobs", json={"adapter_id": adapter, "placements": placements, **asked})
    if lacking is None:
        assert answer.status_code == 202, answer.text
        return
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/placements"
    assert error["detail"].startswith(f"no mask is for {lacking}: give one, or ask for the other types alone")
    assert '"defects": {"crack": 3}' in error["detail"]
    anyone = [*placements, {"polygon": TRIANGLE}]
    assert client.post("/v1/jobs", json={"adapter_id": adapter, "placements": anyone, **asked}).status_code == 202


def test_replacements_need_a_mask_for_each_type_too(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore
) -> None:
    placements = [{"polygon": TRIANGLE, "defect": "crack"}]
    asked = {"adapter_id": typed_adapter(client, store), "placements": placements, "defects": {"crack": 2}}
    job = finished(store, storage, client.post("/v1/jobs", json=asked).json()["id"])
    answer = client.post(f"/v1/jobs/{job}/replacements", json={"num_pairs": 1})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "/defects")
    assert error["detail"] == f"no mask of job {job} is for break: say in defects which types to replace"
    right = client.post(f"/v1/jobs/{job}/replacements", json={"num_pairs": 1, "defects": {"crack": 1}})
    assert right.status_code == 202, right.text


def test_a_type_that_does_not_exist_is_the_only_mistake(client: httpx2.Client, store: RecordStore) -> None:
    asked = {"adapter_id": typed_adapter(client, store), "placements": [{"polygon": TRIANGLE, "defect": "dent"}]}
    (error,) = client.post("/v1/jobs", json={**asked, "num_pairs": 2}).json()["errors"]
    assert (error["pointer"], "did not learn dent" in error["detail"]) == ("/placements/0/defect", True)


def test_methods_refuse_places_and_types_that_they_do_not_have(client: httpx2.Client, store: RecordStore) -> None:
    region = [{"polygon": TRIANGLE}]
    both = {"placements": region, "allowed": region, "forbidden": region, "num_pairs": 2}
    told = {}
    for method in ("dualanodiff", "perlin"):
        adapter = trained(client, store, GOOD, method=method, defect="crack")
        answer = client.post("/v1/jobs", json={"adapter_id": adapter, **both, "defects": {"dent": 2}})
        told[method] = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert set(told["dualanodiff"]) == {"/placements", "/defects"}
    assert told["dualanodiff"]["/placements"].startswith("dualanodiff finds masks on what it made")
    assert "did not learn dent; it knows crack" in told["dualanodiff"]["/defects"]
    assert set(told["perlin"]) == {"/placements", "/allowed", "/forbidden", "/defects"}
    assert told["perlin"]["/allowed"] == (
        "perlin chooses places by itself: regions are for anomalydiffusion and dualanodiff"
    )


@pytest.mark.parametrize(
    ("asked", "where", "reason"),
    [
        (
            {"sizes": [0.5, 1], "mask_source": "learned", "anywhere": True},
            ["/anywhere", "/mask_source", "/sizes"],
            "sizes changes masks that are chosen, and these are given: leave it out",
        ),
        ({"angles": [-5, 5]}, ["/angles"], "angles changes masks that are chosen, and these are given: leave it out"),
        (
            {"defects_per_picture": 2},
            ["/defects_per_picture"],
            "defects_per_picture counts masks that are chosen, and these are given: draw several defects",
        ),
        ({"region": [0, 0.9, 1, 1]}, ["/placements/0"], "100% of the mask placements[0] lies where no defect may"),
        (
            {"forbidden": [{"polygon": EVERYTHING, "normal": "good_1"}]},
            ["/placements/0"],
            "100% of the mask placements[0] lies where no defect may",
        ),
        (
            {"allowed": [{"mask": drawn(mask(side=40)), "normal": "good_2"}]},
            ["/placements/0"],
            "the mask placements[0] is for the normal good_1, but what is allowed is of good_2 alone",
        ),
    ],
)
def test_what_does_not_go_with_given_masks_is_refused_at_once(
    client: httpx2.Client, filler: str, asked: dict[str, Any], where: list[str], reason: str
) -> None:
    placed = {"adapter_id": filler, "num_pairs": 2, "placements": [{"polygon": TRIANGLE, "normal": "good_1"}]}
    answer = client.post("/v1/jobs", json={**placed, **asked})
    assert answer.status_code == 422, answer.text
    told = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert sorted(told) == where
    assert any(detail.startswith(reason) for detail in told.values())


def test_default_values_go_with_given_masks(client: httpx2.Client, filler: str) -> None:
    usual = {"sizes": [0.8, 1.25], "angles": [-25, 25], "anywhere": False, "mask_source": "real"}
    placed = {"adapter_id": filler, "num_pairs": 2, "placements": [{"polygon": TRIANGLE}]}
    assert client.post("/v1/jobs", json={**placed, **usual}).status_code == 202


def test_regions_that_leave_no_place_are_refused_at_once(client: httpx2.Client, filler: str) -> None:
    asked = {"allowed": [{"polygon": TRIANGLE}], "forbidden": [{"polygon": EVERYTHING, "normal": "good_2"}]}
    answer = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, **asked})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "/allowed")
    assert error["detail"].startswith("no defect may lie on good_2:")
    full = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, "placements": [{"polygon": EVERYTHING}]})
    (error,) = full.json()["errors"]
    assert (error["pointer"], "is all white" in error["detail"]) == ("/placements/0", True)


@pytest.mark.parametrize(
    ("asked", "where", "reason"),
    [
        ({"placements": [{"polygon": [[0.5, 0.5]] * 3}]}, "/placements/0", "placements[0] shows 1 pixel, too few"),
        (
            {"placements": [{"polygon": WIDE}]},
            "/placements/0",
            "placements[0] covers 94% of its photograph, and from 90%",
        ),
        ({"placements": [{"polygon": WIDE}], "limits": {"full_area": 0.97}}, "", ""),
        ({"region": [0.5, 0.5, 0.51, 0.51]}, "/region", "no defect may lie on good_1, good_2:"),
        ({"region": [0.5, 0.5, 0.7, 0.7]}, "", ""),
    ],
)
def test_what_no_candidate_can_meet_is_refused_at_once(
    client: httpx2.Client, filler: str, asked: dict[str, Any], where: str, reason: str
) -> None:
    answer = client.post("/v1/jobs", json={"adapter_id": filler, "num_pairs": 2, **asked})
    assert answer.status_code == (422 if where else 202), answer.text
    assert [error["pointer"] for error in answer.json().get("errors", ())] == ([where] if where else [])
    assert reason in answer.json().get("detail", "")


def test_angles_do_not_go_with_learned_masks(client: httpx2.Client, filler: str) -> None:
    asked = {"adapter_id": filler, "num_pairs": 2, "mask_source": "learned", "angles": [0, 5]}
    (error,) = client.post("/v1/jobs", json=asked).json()["errors"]
    assert error["pointer"] == "/angles"
    assert error["detail"] == "angles turns real masks, and learned ones are drawn as they lie: leave it out"


def test_masks_of_a_network_that_the_adapter_lacks_are_refused_at_once(
    client: httpx2.Client, store: RecordStore
) -> None:
    asked = {"adapter_id": trained(client, store, GOOD, defect="crack"), "num_pairs": 2, "mask_method": "u2net"}
    (error,) = client.post("/v1/jobs", json=asked).json()["errors"]
    assert error["pointer"] == "/mask_method"
    assert error["detail"].endswith("but the adapter has none: use threshold or attention")


def test_a_second_pass_of_an_adapter_with_bcm_is_refused_at_once(client: httpx2.Client, store: RecordStore) -> None:
    answer = client.post("/v1/adapters", data={"name": "holes", "defect": "hole"}, files=[*pairs(), *GOOD])
    for bcm in (False, True):
        adapter = succeeded(store, answer.json()["id"], {"config": {"bcm": bcm}})
        asked = {"adapter_id": adapter, "num_pairs": 2, "refine_strength": 0.5}
        errors = client.post("/v1/jobs", json=asked).json().get("errors", [])
        assert [error["pointer"] for error in errors] == (["/refine_strength"] if bcm else [])
        answer = client.post("/v1/adapters", data={"name": "others", "defect": "hole"}, files=[*pairs(), *GOOD])


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"anchored": False, "allowed": [{"polygon": TRIANGLE}], "region": [0, 0, 1, 0.5]}, ["/allowed", "/region"]),
        ({"preset": "paper", "region": [0, 0, 1, 0.5]}, ["/region"]),
        ({"anchored": False, "strength": 0.5}, ["/strength"]),
        ({"anchored": False, "refine_strength": 0.5}, ["/refine_strength"]),
        ({"strength": 0.5, "sketch_strength": 0.5}, ["/sketch_strength"]),
        ({"strength": 0.5}, []),
    ],
)
def test_dualanodiff_keeps_to_regions_on_good_parts_alone(
    client: httpx2.Client, store: RecordStore, asked: dict[str, Any], where: list[str]
) -> None:
    adapter = trained(client, store, GOOD, defect="crack")
    answer = client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2, **asked})
    assert sorted(error["pointer"] for error in answer.json().get("errors", ())) == where
    assert answer.status_code == (422 if where else 202)
    without = trained(client, store, defect="crack")
    answer = client.post("/v1/jobs", json={"adapter_id": without, "num_pairs": 2, "anchored": True})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/anchored"]
