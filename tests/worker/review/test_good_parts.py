"""The good parts that pairs are made on, over HTTP, to choose places on them."""

from __future__ import annotations

import io

import httpx2
import numpy as np
from PIL import Image

from service.core import object_keys
from tests.worker.stored import NORMALS, Service


def test_the_good_parts_of_an_adapter_are_listed_with_their_pictures(
    service: Service, client: httpx2.Client, adapter: str
) -> None:
    listed = client.get(f"/adapters/{adapter}/good-parts").json()["data"]
    assert [part["name"] for part in listed] == [normal.name for normal in NORMALS]
    for part, normal in zip(listed, NORMALS, strict=True):
        answer = client.get(part["picture"].removeprefix("/v1"))
        assert answer.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(answer.content)) as file:
            assert (np.asarray(file.convert("RGB")) == normal.image).all()
    assert client.get(f"/adapters/{adapter}/good-parts/{len(NORMALS)}").status_code == 404
    service.objects.delete_prefix(object_keys.prefix(adapter))
    assert client.get(f"/adapters/{adapter}/good-parts").status_code == 404
