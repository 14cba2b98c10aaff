"""The bases that workers have, as they announce them in Redis."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, cast

from redis import Redis

from service.core.options.methods import DEFAULT_METHOD
from service.core.scripts import NAMESPACE
from service.core.strict_json import from_json, to_json

_BASES = f"{NAMESPACE}bases"


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What can be said about a base without loading it.

    Attributes:
        name: as requests name it.
        resolution: side of the square pictures that it was trained on, pixels.
        multiple: a training's resolution must be a multiple of this, pixels.
        training, sampling: option → value that it recommends.
        license: of its weights; empty if it does not say.
        method: which suits it best where there are good parts.
    """

    name: str
    resolution: int
    multiple: int
    training: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    license: str = ""
    method: str = DEFAULT_METHOD


def announce(redis: Redis, *found: BaseFacts) -> None:
    """Save what a worker knows about bases; later facts replace earlier ones of the same name."""
    if found:
        redis.hset(_BASES, mapping={facts.name: to_json(asdict(facts)) for facts in found})


def announced(redis: Redis) -> dict[str, BaseFacts]:
    """Name → facts of every base that a worker has announced."""
    entries = cast(dict[str, str], redis.hgetall(_BASES))
    return {name: BaseFacts(**from_json(entry)) for name, entry in sorted(entries.items())}
