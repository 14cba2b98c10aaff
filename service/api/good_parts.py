"""Routes under `/adapters/{id}/good-parts`: the photographs that pairs are made on, to choose places on them."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import resources
from service.api.adapters import AdapterId
from service.api.auth import KeyId
from service.api.made_pairs import uploaded
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented
from service.api.services import Services, UsedServices
from service.core.object_keys import Kind
from service.core.storage import MissingObject
from service.core.strict_json import to_json

router = APIRouter(
    prefix="/adapters",
    tags=["adapters"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented(
        "unauthorized", "forbidden", "unavailable", "adapter_not_found", "not_found", "invalid_request"
    ),
)


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GoodPart(_Schema):
    """A photograph of a part without a defect."""

    name: str = Field(description="As `placements` and the manifest name it.")
    picture: str = Field(description="Path of the picture.")


class GoodPartList(_Schema):
    """All good parts of an adapter."""

    data: list[GoodPart] = Field(description="The good parts, in the order in which they were uploaded.")


@router.get("/{adapter_id}/good-parts", response_model=GoodPartList)
async def list_good_parts(services: UsedServices, key_id: KeyId, adapter_id: AdapterId) -> Response:
    """List the photographs of good parts that were uploaded with an adapter."""
    await resources.owned(services, Kind.ADAPTER, adapter_id, key_id)
    names = [normal["name"] for normal in await to_thread.run_sync(_normals, services, adapter_id)]
    base = f"/v1/adapters/{adapter_id}/good-parts"
    data = [{"name": name, "picture": f"{base}/{number}"} for number, name in enumerate(names)]
    return Response(to_json({"data": data}), media_type="application/json")


@router.get(
    "/{adapter_id}/good-parts/{number}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "A PNG."}},
)
async def get_good_part(
    services: UsedServices,
    key_id: KeyId,
    adapter_id: AdapterId,
    number: Annotated[int, Path(ge=0, le=9_999, description="Its place in the list, from 0.")],
) -> Response:
    """Get a photograph of a good part."""
    await resources.owned(services, Kind.ADAPTER, adapter_id, key_id)

    def read() -> bytes:
        normals = _normals(services, adapter_id)
        if number >= len(normals):
            raise Problem("not_found", f"this adapter has {len(normals)} good parts, numbered from 0")
        return services.storage.get(normals[number]["key"])

    return Response(await to_thread.run_sync(read), media_type="image/png", headers=resources.PICTURE_HEADERS)


def _normals(services: Services, adapter: str) -> list[dict[str, Any]]:
    try:
        return uploaded(services.storage, adapter)["normals"]
    except MissingObject as error:
        raise Problem("adapter_not_found", f"the photographs of adapter {adapter} were deleted") from error
