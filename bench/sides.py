"""Runs the two sides of a comparison, both warm and with the same requests: the bare library, and the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

from bench.lenient import LENIENT
from model.pretrain.procedural.samples import DEFECT, OBJECT, SAMPLES
from service.client import Client, Resource
from service.core.api_keys import create_key
from service.core.strict_json import to_json
from service.embedded.folder import Running
from service.embedded.processes import marked
from service.embedded.stack import Stack, StackOptions

ROOT = Path(__file__).resolve().parent.parent

TRAINING: dict[str, Any] = {"steps": 10, "batch": 1, "views": 1, "mask_steps": 1, "seed": 1}
"""Few training steps, since the figures do not depend on how well the adapter is trained."""


@dataclass(frozen=True, slots=True)
class Made:
    """Figures of one dataset.

    Attributes:
        seconds: from the request until the zip was complete.
        first: seconds from the request until the first pair was accepted.
        processor: seconds of processor time of all processes involved; other programs hardly affect it.
        attempts: number of candidates.
        sha256: hash of the zip.
    """

    seconds: float
    first: float
    processor: float
    attempts: int
    sha256: str


class Library:
    """Runs the library in its own process, with `OMP_NUM_THREADS` threads."""

    def __init__(self, process: subprocess.Popen[str], target: Path) -> None:
        self._process = process
        self._target = target

    def make(self, num_pairs: int, seed: int) -> Made:
        assert self._process.stdin is not None  # noqa: S101 - pipes were asked for
        assert self._process.stdout is not None  # noqa: S101 - as above
        request = {"num_pairs": num_pairs, "seed": seed, "limits": LENIENT, "target": str(self._target)}
        self._process.stdin.write(to_json(request) + "\n")
        self._process.stdin.flush()
        return Made(**json.loads(self._process.stdout.readline()))


@contextmanager
def library(adapter: Path, threads: int) -> Iterator[Library]:
    """Start the library with a trained adapter, and the samples' normal images."""
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "bench.library", str(adapter), str(SAMPLES / "normals")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"},
    )
    with process:
        yield Library(process, adapter.with_name("library.zip"))


class Service:
    """Sends requests to a running stack over HTTP, with an API key."""

    def __init__(self, running: Running, folder: Path, key: str | None) -> None:
        self._folder = folder.resolve()
        self.key = key or _new_key(running)
        self.url = running.url
        self.environment = running.environment
        self.client = Client(self.url, self.key)

    def train(self) -> str:
        """Train an adapter on the samples; returns its id."""
        images, masks, normals = (sorted((SAMPLES / kind).iterdir()) for kind in ("images", "masks", "normals"))
        begun = self.client.create_adapter(
            images, masks, normals, name="bench", object=OBJECT, defect=DEFECT, **TRAINING
        )
        return _succeeded(self.client.wait(begun.id)).id

    def make(self, adapter: str, num_pairs: int, seed: int) -> Made:
        """Run a job, from the request until its record says that it succeeded."""
        first = 0.0

        def watch(job: Resource) -> None:
            nonlocal first
            if not first and (job.counts or {}).get("accepted"):
                first = time.time()

        asked, before = time.time(), self.processor_seconds()
        job = self.begin(adapter, num_pairs, seed)
        done = _succeeded(self.client.wait(job, watch))
        record = done.model_dump()
        # The record's time, by this machine's clock, because the client polls only at intervals.
        ended = datetime.fromisoformat(record["timestamps"]["succeeded"]).timestamp()
        used = self.processor_seconds() - before
        return Made(ended - asked, first - asked, used, record["counts"]["attempts"], record["dataset"]["sha256"])

    def begin(self, adapter: str, num_pairs: int, seed: int) -> str:
        """Queue a job; returns its id."""
        return self.client.create_job(adapter, num_pairs, seed=seed, limits=LENIENT).id

    def processor_seconds(self, program: str = "") -> float:
        """Return the processor time of the stack's processes, or of those with `program` in their command line."""
        return sum(
            processor_seconds(process)
            for process in marked(self._folder)
            if program.encode() in Path(f"/proc/{process}/cmdline").read_bytes()
        )


def processor_seconds(process: int) -> float:
    """Return the processor time that a process used so far.

    See proc(5): fields 14 and 15, counted after the name in brackets.
    """
    times = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service(folder: Path, workers: int, threads: int, key: str | None = None) -> Iterator[Service]:
    """Start a whole stack like `pairforge up`, with keys required.

    Args:
        folder: its data folder, with the data of an earlier stack, if any.
        threads: threads of each worker.
        key: API key that owns the adapters; None for a new one.
    """
    with _environment({"OMP_NUM_THREADS": str(threads)}):
        stack = Stack(StackOptions(folder, workers=workers, require_keys=True), _report)
        with stack:
            asked = Service(stack.start(), folder, key)
            with asked.client:
                yield asked


def _new_key(running: Running) -> str:
    with redis.Redis.from_url(running.environment["PAIRFORGE_REDIS_URL"], decode_responses=True) as client:
        return create_key(client, "bench")


def _report(message: str) -> None:
    sys.stderr.write(f"{message}\n")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _succeeded(final: Resource) -> Resource:
    if final.state != "succeeded":
        raise RuntimeError(f"{final.id} is {final.state}: {final.error}")
    return final
