"""Routes under `/jobs/{id}/pairs`: the pairs of a job one by one, also while it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import pair_pictures, resources
from service.api.auth import KeyId
from service.api.jobs import JobId
from service.api.made_pairs import MadePair, MadePairs, uploaded
from service.api.pair_pictures import Look
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented
from service.api.services import UsedServices
from service.core.object_keys import Kind
from service.core.record import Record
from service.core.storage import MissingObject, ObjectStore
from service.core.strict_json import to_json

router = APIRouter(
    prefix="/jobs",
    tags=["pairs"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "unavailable"),
)

Candidate = Annotated[int, Path(ge=0, le=99_999_999, description="The pair's `candidate` in the list of pairs.")]
_Seen = TypeVar("_Seen")

PictureName = Literal["image", "mask", "thumbnail", "outline", "good-part", "nearest-real"]

PICTURES_AT_ONCE = 4
"""Pictures decoded at once; others wait, so that a fast scroll keeps no other request waiting."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pair(_Schema):
    """A checked candidate of a job."""

    candidate: int = Field(description="Index among all candidates of the job.")
    number: int | None = Field(description="Number in the dataset; null if it is not, or not yet, in one.")
    accepted: bool = Field(description="Whether it passed the checks.")
    reasons: list[str] = Field(description="Why the checks rejected it; empty if they did not.")
    seed: int = Field(description="Its own seed.")
    scores: dict[str, float | None] = Field(description="What the checks have measured; `score` sums it up, 0 to 1.")
    width: int | None = Field(description="Pixels; null until the dataset is complete.")
    height: int | None = Field(description="Pixels; null until the dataset is complete.")
    mask_fraction: float | None = Field(description="Share of the image that the mask covers, 0 to 1.")
    window: list[int] | None = Field(description="Left, top, right and bottom of what was generated; null for all.")
    normal: str | None = Field(description="Name of the good part that it was generated on.")
    defect: str | None = Field(description="Its defect type, where the adapter has several; otherwise null.")
    given: str | None = Field(description="Which of the job's placements it fills; null without any.")
    review: dict[str, Any] | None = Field(description="Who approved it and when; null outside of selections.")
    pictures: dict[str, str] = Field(description="Name of a picture and its path.")


class PairList(_Schema):
    """A page of pairs, in the order of their candidates."""

    data: list[Pair] = Field(description="The pairs of this page.")
    total: int = Field(description="Number of pairs on all pages.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class NearestReal(_Schema):
    """The real defect that a generated one looks most like."""

    name: str = Field(description="Name of the uploaded image.")
    likeness: float = Field(description="0 to 1; the same look in any of eight positions is 1.")


class PairDetail(Pair):
    """A pair with what it looks most like."""

    nearest_real: NearestReal | None = Field(description="Null if the adapter was deleted.")


class LookedAt:
    """What the routes share: the lists of pairs, and how the real defects look. Safe to use from several threads."""

    def __init__(self, pairs: MadePairs, storage: ObjectStore) -> None:
        self.pairs = pairs
        self.storage = storage
        self.limiter = CapacityLimiter(PICTURES_AT_ONCE)
        self.reals = lru_cache(maxsize=64)(self._read_reals)

    def _read_reals(self, adapter: str) -> list[tuple[dict[str, Any], dict[str, Any], Look]]:
        """Return image, mask and look of every real pair of an adapter.

        Raises:
            MissingObject: the adapter was deleted.
        """
        listed, found = uploaded(self.storage, adapter), []
        for image, mask in zip(listed["images"], listed["masks"], strict=True):
            look = pair_pictures.look_of(self.storage.get(image["key"]), self.storage.get(mask["key"]))
            if look is not None:
                found.append((image, mask, look))
        return found

    def nearest(self, record: Record, pair: MadePair) -> tuple[dict[str, Any], dict[str, Any], float] | None:
        """Return image and mask of the nearest real defect, and the likeness; None if it cannot be said."""
        look = pair_pictures.look_of(self.pairs.read(pair, pair.image), self.pairs.read(pair, pair.mask))
        try:
            reals = self.reals(record.request["adapter_id"])
        except MissingObject:
            return None
        if look is None or not reals:
            return None
        best, likeness = pair_pictures.nearest(look, [real for _, _, real in reals])
        return *reals[best][:2], likeness


def looked_at(request: Request, services: UsedServices) -> LookedAt:
    """Return what the routes share; made by the first request."""
    state = request.app.state
    if getattr(state, "looked_at", None) is None or state.looked_at.storage is not services.storage:
        state.looked_at = LookedAt(MadePairs(services.store, services.storage), services.storage)
    found: LookedAt = state.looked_at
    return found


def view(record: Record, pair: MadePair) -> dict[str, Any]:
    """Render a pair as `Pair` describes it."""
    facts = pair.facts
    base = f"/v1/jobs/{record.id}/pairs/{pair.candidate}"
    names = ["image", "mask", "thumbnail", "outline", "nearest-real"]
    return {
        "candidate": pair.candidate,
        "number": pair.number,
        "accepted": pair.accepted,
        "reasons": list(pair.reasons),
        "seed": facts["seed"],
        "scores": facts["scores"],
        "width": facts.get("width"),
        "height": facts.get("height"),
        "mask_fraction": facts.get("mask_fraction", facts["scores"].get("area")),
        "window": facts["window"],
        "normal": facts["normal"],
        "defect": facts.get("defect"),
        "given": facts.get("given"),
        "review": facts.get("review"),
        "pictures": {name: f"{base}/{name}" for name in [*names, *(["good-part"] if facts["normal"] else [])]},
    }


@router.get("/{job_id}/pairs", response_model=PairList, responses=documented("job_not_found", "invalid_request"))
async def list_job_pairs(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    job_id: JobId,
    *,
    rejected: Annotated[
        bool, Query(description="List rejected candidates instead; the first ones are kept once the job has ended.")
    ] = False,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,8}$", description="The `next_cursor` of the previous page.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Pairs per page.")] = 100,
    order: Annotated[
        Literal["made", "newest"], Query(description="In the order of candidates, or the reverse.")
    ] = "made",
) -> Response:
    """List the pairs of a job with their scores, as far as they are made: also while it runs."""
    record = await resources.owned(services, Kind.JOB, job_id, key_id)
    shared = looked_at(request, services)
    found = await to_thread.run_sync(lambda: shared.pairs.listed(record, accepted=not rejected))
    newest = order == "newest"
    ordered = found[::-1] if newest else found
    if cursor is None:
        rest = ordered
    else:
        last = int(cursor)
        rest = [pair for pair in ordered if (pair.candidate < last if newest else pair.candidate > last)]
    following = str(rest[limit - 1].candidate) if len(rest) > limit else None
    data = [view(record, pair) for pair in rest[:limit]]
    content = to_json({"data": data, "total": len(found), "next_cursor": following})
    return Response(content, media_type="application/json", headers={"Cache-Control": "private, no-cache"})


@router.get(
    "/{job_id}/pairs/{candidate}", response_model=PairDetail, responses=documented("job_not_found", "not_found")
)
async def get_job_pair(
    request: Request, services: UsedServices, key_id: KeyId, job_id: JobId, candidate: Candidate
) -> Response:
    """Get one pair of a job, and the real defect that it looks most like."""
    record, shared = await resources.owned(services, Kind.JOB, job_id, key_id), looked_at(request, services)

    def described(record: Record, pair: MadePair) -> dict[str, Any]:
        nearest = shared.nearest(record, pair)
        real = {"name": nearest[0]["name"], "likeness": round(nearest[2], 4)} if nearest else None
        return {**view(record, pair), "nearest_real": real}

    found = await to_thread.run_sync(lambda: _seen(shared, record, candidate, described))
    return Response(to_json(found), media_type="application/json")


@router.get(
    "/{job_id}/pairs/{candidate}/{picture}",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "A PNG."},
        **documented("job_not_found", "not_found"),
    },
)
async def get_job_pair_picture(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    job_id: JobId,
    candidate: Candidate,
    picture: Annotated[PictureName, Path(description="One of the pair's `pictures`.")],
) -> Response:
    """Get a picture of a pair: its image or mask, a small one, the good part it was made on, or the nearest real."""
    record, shared = await resources.owned(services, Kind.JOB, job_id, key_id), looked_at(request, services)
    content = await to_thread.run_sync(
        lambda: _seen(shared, record, candidate, partial(_PICTURES[picture], shared)), limiter=shared.limiter
    )
    if content is None:
        raise Problem("not_found", f"this pair has no picture {picture}: `pictures` lists those that it has")
    return Response(content, media_type="image/png", headers=resources.PICTURE_HEADERS)


def _seen(shared: LookedAt, record: Record, candidate: int, look: Callable[[Record, MadePair], _Seen]) -> _Seen:
    """Look at a pair of a job; again in its dataset, if the job ended meanwhile and its blocks are gone."""
    try:
        return look(record, _found(shared, record, candidate))
    except MissingObject:
        latest = shared.pairs.latest(record)
        if latest.state is record.state:
            raise
        return look(latest, _found(shared, latest, candidate))


def _found(shared: LookedAt, record: Record, candidate: int) -> MadePair:
    pair = shared.pairs.find(record, candidate)
    if pair is None:
        raise Problem("not_found", f"no candidate {candidate} of this job is kept: `GET /jobs/{{id}}/pairs` lists them")
    return pair


def _image(shared: LookedAt, record: Record, pair: MadePair) -> bytes:
    return shared.pairs.read(pair, pair.image)


def _mask(shared: LookedAt, record: Record, pair: MadePair) -> bytes:
    return shared.pairs.read(pair, pair.mask)


def _thumbnail(shared: LookedAt, record: Record, pair: MadePair) -> bytes:
    return pair_pictures.thumbnail(shared.pairs.read(pair, pair.image), None, pair.facts["window"])


def _outline(shared: LookedAt, record: Record, pair: MadePair) -> bytes:
    mask = shared.pairs.read(pair, pair.mask)
    return pair_pictures.thumbnail(shared.pairs.read(pair, pair.image), mask, pair.facts["window"])


def _good_part(shared: LookedAt, record: Record, pair: MadePair) -> bytes | None:
    try:
        listed = uploaded(shared.storage, record.request["adapter_id"])
    except MissingObject:
        return None
    key = next((each["key"] for each in listed["normals"] if each["name"] == pair.facts["normal"]), None)
    return shared.storage.get(key) if key else None


def _nearest_real(shared: LookedAt, record: Record, pair: MadePair) -> bytes | None:
    nearest = shared.nearest(record, pair)
    if nearest is None:
        return None
    image, mask, _ = nearest
    return pair_pictures.thumbnail(shared.storage.get(image["key"]), shared.storage.get(mask["key"]), None)


_PICTURES: dict[str, Callable[[LookedAt, Record, MadePair], bytes | None]] = {
    "image": _image,
    "mask": _mask,
    "thumbnail": _thumbnail,
    "outline": _outline,
    "good-part": _good_part,
    "nearest-real": _nearest_real,
}
