"""`pairforge demo`: makes a first dataset in minutes, from the shipped samples or the user's own pairs.

It works like a deployment: it starts its own stack beside the results and sends it HTTP requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from model.cli.demo_inputs import DemoRequest, Inputs, checked_inputs
from model.cli.output import PREPARED, Output, duration
from model.runtime.progress import Progress
from service.client import Client, Resource
from service.core.atomic_write import atomic_folder
from service.core.errors import TransientError, UsageError
from service.embedded.launch import launched

__all__ = ["DemoRequest", "demo"]

STACK = ".stack"
"""Folder of the stack, beside the results; a later run resumes unfinished work from it."""

TRAINING_SHARE = 50
"""Percentage of the bar that stands for training; the rest is generation."""


def demo(request: DemoRequest, output: Output) -> None:
    """Train, generate, and report where the files are. An adapter already trained on the same inputs is reused."""
    began = time.monotonic()
    inputs = checked_inputs(request, output)
    output.progress(PREPARED)
    bar = Bar(output, request.num_pairs)
    bar.show("starting Redis, S3, API and worker", 0)
    with launched(request.target / STACK, inputs.settings()) as url, Client(url) as client:
        adapter = _trained(client, inputs, request, output, bar)
        job = _generated(client, inputs, adapter, request, bar)
        with atomic_folder(request.adapter) as aside:
            client.download_adapter(adapter.id, aside)
        client.download(job.id, request.dataset)
        client.download_preview(job.id, request.preview)
    bar.show("complete", 100)
    seconds = round(time.monotonic() - began, 1)
    _report_result(request, inputs, job, seconds, output)


class Bar:
    """Shows one progress bar over training and generation, in percent.

    Args:
        output: where the bar is shown.
        num_pairs: how many pairs are generated.
    """

    def __init__(self, output: Output, num_pairs: int) -> None:
        self._output = output
        self._num_pairs = num_pairs
        self._reached = 0
        self._began = time.monotonic()

    def training(self, adapter: Resource) -> None:
        progress = adapter.progress
        training = progress and progress.stage == "train" and progress.total
        share = progress.completed / progress.total if progress and training else 0.0
        self._follow(adapter, int(TRAINING_SHARE * share))

    def generation(self, job: Resource) -> None:
        accepted = (job.counts or {}).get("accepted", 0)
        self._follow(job, TRAINING_SHARE + int((100 - TRAINING_SHARE) * accepted / self._num_pairs))

    def show(self, note: str, percent: int) -> None:
        """Show a note and move the bar forward; it never moves back when a resumed stage repeats work."""
        self._reached = max(self._reached, min(percent, 100))
        elapsed = duration(time.monotonic() - self._began)
        self._output.progress(Progress("demo", self._reached, 100, "%", note=f"{elapsed}  {note}"))

    def _follow(self, resource: Resource, percent: int) -> None:
        progress = resource.progress
        if progress is None:
            self.show(resource.state, percent)
            return
        loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
        left = "" if progress.eta is None else f", {duration(progress.eta)} left"
        done = f"{progress.stage} {progress.completed}/{progress.total} {progress.unit}"
        # 100 % is for the end of the demo.
        self.show(f"{done}{loss}{left}", min(percent, 99))


def _trained(client: Client, inputs: Inputs, request: DemoRequest, output: Output, bar: Bar) -> Resource:
    key = inputs.adapter_key()
    adapter = _current(
        client,
        lambda again: client.create_adapter(
            inputs.images, inputs.masks, inputs.normals, idempotency_key=f"{key}-{again}", **inputs.training
        ),
    )
    if adapter.finished:
        output.note(f"reusing {request.adapter}, which was already trained on the same inputs")
        return adapter
    return _succeeded(client.wait(adapter.id, bar.training, poll=True))


def _generated(client: Client, inputs: Inputs, adapter: Resource, request: DemoRequest, bar: Bar) -> Resource:
    key = inputs.job_key(adapter.id, request.num_pairs)
    job = _current(
        client,
        lambda again: client.create_job(
            adapter.id, request.num_pairs, idempotency_key=f"{key}-{again}", **inputs.sampling
        ),
    )
    return _succeeded(client.wait(job.id, bar.generation, poll=True))


def _current(client: Client, create: Callable[[int], Resource]) -> Resource:
    """Return the resource that the same request made before; create it if that failed or was cancelled."""
    for again in count():
        found = client.get(create(again).id)
        if found.state not in {"failed", "cancelling", "cancelled"}:
            return found
    raise AssertionError("counting does not end")


def _succeeded(final: Resource) -> Resource:
    if final.state == "succeeded":
        return final
    error = final.error or {}
    problems = error.get("problems") or [error.get("detail") or f"{final.id} is {final.state}"]
    if error.get("code") in {"unusable_input", "diverged"}:
        raise UsageError([str(problem) for problem in problems])
    message = f"{final.id} is {final.state}: {'; '.join(map(str, problems))}"
    raise RuntimeError(message) if error.get("code") == "internal_error" else TransientError(message)


def _report_result(request: DemoRequest, inputs: Inputs, job: Resource, seconds: float, output: Output) -> None:
    adapter, dataset, preview = request.adapter, request.dataset, request.preview
    normals = f" --normals {next(iter(inputs.normals.values())).parent}" if inputs.normals else ""
    output.result(
        {
            "adapter": str(adapter),
            "dataset": str(dataset),
            "preview": str(preview),
            "num_pairs": request.num_pairs,
            "counts": job.counts,
            "seconds": seconds,
        },
        f"generated {request.num_pairs} pairs from {len(inputs.images)} real ones in {duration(seconds)}:\n"
        f"  {dataset}  images, masks, manifest\n"
        f"  {preview}  real pairs, then generated ones: look at this first\n"
        f"  {adapter}  the adapter\n"
        "next:\n"
        f"  pairforge inspect {dataset}\n"
        f"  pairforge generate {adapter} --out more.zip --num-pairs 100 --formats mvtec,coco{normals}\n"
        "  pairforge demo --images DIR --masks DIR --normals DIR --out mine    the same with your own images\n"
        "  pairforge evaluate DIR --out report    whether such pairs help a detector, on photographs held out\n"
        f"  pairforge up --data-dir {request.target / STACK}    the service that made it",
    )
