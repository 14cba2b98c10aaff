"""Caches models in memory: a base is loaded once per process, and the last used adapters are kept."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base, silence_libraries
from model.masks.networks import MaskNetworks, load_mask_networks
from model.method import Adapter
from model.methods import load_adapter
from model.runtime.timing import stage
from service.core.bases import announce
from service.core.errors import TransientError, UsageError
from service.core.record import State
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import MissingObject, ObjectStore
from worker.attempt.inputs import read_normals
from worker.attempt.retry import retry
from worker.attempt.workspace import workspace
from worker.bases import facts_of

ADAPTERS_KEPT = 4
"""Number of cached adapters; they share their base's weights, and each adds a few megabytes and its normal images."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter ready for sampling.

    Attributes:
        networks: the base's own mask networks.
        normals: the normal images uploaded with the adapter's pairs.
    """

    adapter: Adapter
    networks: MaskNetworks
    normals: Sequence[NormalImage]


class ModelCache:
    """Loads and caches models; used by one thread."""

    def __init__(self, settings: Settings, store: RecordStore, objects: ObjectStore) -> None:
        self._settings = settings
        self._store = store
        self._objects = objects
        self._base: tuple[Base, MaskNetworks] | None = None
        self._adapters: OrderedDict[str, Loaded] = OrderedDict()

    def base(self, name: str | None) -> tuple[Base, MaskNetworks]:
        """Return a base and its mask networks; the base used before is unloaded.

        Args:
            name: requested name; None for the server's default.

        Raises:
            UsageError: if the base does not exist.
        """
        name = name or self._settings.base
        if self._base is None or self._base[0].name != name:
            self._base = None
            self._adapters.clear()
            with stage("load"):
                silence_libraries()
                base = load_base(name, device=self._device())
                self._base = (base, load_mask_networks(base))
            if (facts := facts_of(name, base.folder)) is not None:
                retry(lambda: announce(self._store.redis, facts))
        return self._base

    def adapter(self, adapter: str, check: Callable[[], None]) -> Loaded:
        """Return a trained adapter.

        Args:
            check: called between attempts and files; an error that it raises ends the loading.

        Raises:
            UsageError: if the adapter does not exist, or its training did not succeed.
            TransientError: if its files cannot be read intact.
        """
        record = retry(lambda: self._store.records.get(adapter), check)
        if record is None or record.state is not State.SUCCEEDED or record.result is None:
            raise UsageError(f"the adapter {adapter} no longer exists")
        if adapter in self._adapters:
            self._adapters.move_to_end(adapter)
            return self._adapters[adapter]
        base, networks = self.base(record.result["request"]["base"])
        try:
            normals = read_normals(self._objects, adapter, check)
            loaded = self._fetch(adapter, record.result, base, check)
        except MissingObject as error:
            raise UsageError(f"the adapter {adapter} is being deleted: {error}") from error
        return self.keep(adapter, Loaded(loaded, networks, normals))

    def keep(self, adapter: str, loaded: Loaded) -> Loaded:
        """Cache an adapter for later jobs."""
        self._adapters[adapter] = loaded
        while len(self._adapters) > ADAPTERS_KEPT:
            self._adapters.popitem(last=False)
        return loaded

    def _fetch(self, adapter: str, result: dict[str, Any], base: Base, check: Callable[[], None]) -> Adapter:
        with workspace(self._settings) as folder:
            for file in result["files"]:
                key, path = result["artifact"] + file["path"], folder / file["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                retry(functools.partial(self._download, adapter, file, key, path), check)
            with stage("load"):
                return load_adapter(folder, base)

    def _download(self, adapter: str, file: dict[str, Any], key: str, path: Path) -> None:
        self._objects.download(key, path)
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file["sha256"]:
                raise TransientError(
                    f"{file['path']} of the adapter {adapter} is damaged: its SHA-256 is not the recorded one"
                )

    def _device(self) -> str:
        if self._settings.device != "auto":
            return self._settings.device
        return "cuda" if torch.cuda.is_available() else "cpu"
