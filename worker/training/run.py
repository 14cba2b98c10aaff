"""Runs one attempt at training an adapter: from stored inputs and the newest checkpoint to a stored adapter."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import torch

from model.adapter_card import read_adapter_card
from model.method import Adapter, TrainingRequest
from model.methods import load_adapter, method_named, train_adapter
from model.runtime.progress import Progress
from model.runtime.timing import stage
from service.core import object_keys
from service.core.object_keys import Kind
from service.core.options.methods import DEFAULT_METHOD
from service.core.record import Record
from worker.attempt.attempt import run_attempt
from worker.attempt.completion import SCRATCH_PATIENCE, delete_beside, delete_scratch
from worker.attempt.context import Context
from worker.attempt.delivery import Delivery
from worker.attempt.inputs import read_inputs
from worker.attempt.lease import Lease, StopError, StopReason
from worker.attempt.model_cache import Loaded
from worker.attempt.progress import Reporter
from worker.attempt.retry import retry
from worker.training.checkpoints import Checkpoints
from worker.training.sample_sheet import sample_sheet
from worker.training.step_metrics import StepMetrics

log = structlog.stdlib.get_logger(__name__)

FIRST_CHECKPOINT_SECONDS = 60.0
"""Training time after which the first checkpoint is stored at the latest, so that a worker's death costs no more."""


def run_training(adapter: str | None, context: Context, *, delivery: Delivery | None = None) -> None:
    """Train an adapter, unless another worker does or did, and write the result or error to its record.

    Args:
        adapter: id of the adapter; None for the next one.
        delivery: delivery of the message that started this.
    """
    run_attempt(
        context,
        Kind.ADAPTER,
        adapter,
        delivery,
        work=lambda record, lease, folder: _Training(context, record, lease, folder).run(),
        event="training_claimed",
    )


class _Training:
    def __init__(self, context: Context, record: Record, lease: Lease, folder: Path) -> None:
        self._context = context
        self._record = record
        self._lease = lease
        self._folder = folder
        self._report = Reporter(context, record.id, lease.owner)
        self._workspace = folder / "training"
        self._checkpoints = Checkpoints(context, record, lease, self._workspace, folder / "staging")

    def run(self) -> bool:
        """Train and store the adapter; returns whether this worker completed the record."""
        self._report.stage("prepare")
        asked, check = self._record.request, self._lease.check
        inputs = read_inputs(self._context.objects, self._record.id, check)
        base, networks = self._context.model_cache.base(asked.get("base"))
        name = asked.get("method", DEFAULT_METHOD)
        method = method_named(name)
        first, *others = inputs.types(asked["defect"])
        request = TrainingRequest(
            base,
            first.pairs,
            method.resolve_training(base, asked["training"]),
            asked["object"],
            first.name,
            networks,
            normals=inputs.normals,
            method=name,
            others=others,
            brightness=inputs.brightness,
        )
        for note in method.check_training(request):
            log.info("training_note", note=note)
        self._report.request = {**asked, "base": base.name, "training": request.settings.as_dict()}
        step = self._checkpoints.restore()
        log.info("training_begins", step=step)
        try:
            self._train(request, StepMetrics(self._context.metrics, step))
        finally:
            self._checkpoints.close()
        return self._finish(request)

    def _train(self, request: TrainingRequest[Any], step_metrics: StepMetrics) -> None:
        """Train; if the device runs out of memory, continue with half the batch and twice the batches per step."""
        callback = _Callback(self._lease, self._checkpoints, request, step_metrics)
        while True:
            try:
                for item in train_adapter(request, self._folder / "adapter", self._workspace, callback=callback):
                    self._report.report(item)
                    step_metrics.report(item)
                    if item.stage == "train":
                        self._lease.check_unless_handover()
                    else:
                        self._check_stored()
            except torch.OutOfMemoryError:
                if request.settings.batch == 1:
                    raise
                request = replace(request, settings=request.settings.with_half_batch())
                self._context.metrics.out_of_memory.labels(self._record.kind).inc()
                self._report.request = {**(self._report.request or {}), "training": request.settings.as_dict()}
                log.warning("batch_halved", batch=request.settings.batch)
                torch.cuda.empty_cache()
            else:
                return

    def _check_stored(self) -> None:
        """Before a handover, wait until the latest checkpoint is in the object store."""
        if self._lease.reason is StopReason.HANDOVER:
            self._checkpoints.flush()
        self._lease.check()

    def _finish(self, request: TrainingRequest[Any]) -> bool:
        self._report.stage("finish")
        check, adapter, folder = self._lease.check, self._record.id, self._folder / "adapter"
        loaded = Loaded(load_adapter(folder, request.base), request.networks, request.normals)
        card = read_adapter_card(folder)
        samples, artifact = self._checkpoints.samples, object_keys.artifact(adapter, self._lease.owner)
        if (sheet := sample_sheet(loaded.adapter, request.normals, request.networks.object, check)) is not None:
            kept = card["kept_step"]
            samples[kept] = object_keys.sample(adapter, kept, self._lease.owner)
            self._put(samples[kept], sheet, "image/png")
        files = [self._upload(folder, path, artifact) for path in sorted(folder.rglob("*")) if path.is_file()]
        self._report.report(Progress("finish", 1, 1, "parts"))
        result = {
            "card": card,
            "loss": card["loss_curve"],
            "samples": dict(sorted(samples.items())),
            "artifact": artifact,
            "files": files,
            "bytes": sum(file["bytes"] for file in files),
            "request": self._report.request,
        }
        stored = retry(lambda: list(self._context.objects.list(object_keys.prefix(adapter))), check)
        lasting = (object_keys.uploads(adapter), artifact, *samples.values())
        size = sum(each.size for each in stored if each.key.startswith(lasting))
        store, owner = self._context.store, self._lease.owner
        succeeded = retry(lambda: store.claims.succeed(adapter, owner, result, size), check)
        if succeeded:
            self._context.model_cache.keep(adapter, loaded)
            log.info("training_succeeded", bytes=result["bytes"])
            retry(lambda: self._delete_others(artifact, set(samples.values())), patience=SCRATCH_PATIENCE)
        return succeeded

    def _delete_others(self, artifact: str, samples: set[str]) -> None:
        """Delete what only unfinished work needs, and results of attempts that died before reporting them."""
        objects, adapter = self._context.objects, self._record.id
        delete_scratch(objects, adapter)
        delete_beside(objects, object_keys.artifact(adapter), artifact)
        for each in objects.list(object_keys.samples(adapter)):
            if each.key not in samples:
                objects.delete_prefix(each.key)

    def _upload(self, folder: Path, path: Path, artifact: str) -> dict[str, Any]:
        name = path.relative_to(folder).as_posix()
        self._put(artifact + name, path, "application/octet-stream")
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return {"path": name, "bytes": path.stat().st_size, "sha256": digest}

    def _put(self, key: str, content: Path | bytes, content_type: str) -> None:
        with stage("store"):
            retry(lambda: self._context.objects.put(key, content, content_type=content_type), self._lease.check)


class _Callback:
    """Stores checkpoints with a sample sheet; asks for a first one soon; on a handover, for a last one."""

    def __init__(
        self, lease: Lease, checkpoints: Checkpoints, request: TrainingRequest[Any], step_metrics: StepMetrics
    ) -> None:
        self._lease = lease
        self._checkpoints = checkpoints
        self._request = request
        self._step_metrics = step_metrics
        self._sheets: dict[int, bytes | None] = {}
        self._last: int | None = None
        self._first_due = time.monotonic() + FIRST_CHECKPOINT_SECONDS if not checkpoints.restored else math.inf

    def wants_checkpoint(self) -> bool:
        self._lease.check_unless_handover()
        return self._lease.reason is StopReason.HANDOVER or time.monotonic() > self._first_due

    def on_checkpoint(self, step: int, adapter: Adapter) -> None:
        early, self._first_due = time.monotonic() > self._first_due, math.inf
        if early and self._lease.reason is not StopReason.HANDOVER:
            return
        if self._lease.reason is StopReason.HANDOVER:
            self._last = step
        else:  # the last sheet is made of the result, with the fine-tuned mask network and the best weights
            with self._step_metrics.paused():
                check = self._lease.check_unless_handover
                self._sheets[step] = sample_sheet(adapter, self._request.normals, self._request.networks.object, check)

    def on_saved(self, step: int, checkpoint: Path) -> None:
        self._checkpoints.offer(step, checkpoint, self._sheets.pop(step, None))
        if step == self._last:
            self._checkpoints.flush()
            raise StopError(StopReason.HANDOVER)
