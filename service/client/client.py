"""The client, with one method per operation of the server."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import httpx2

from service.client.resources import Files, HeldOut, Page, Pictures, Resource
from service.client.transport import UNAVAILABLE, ApiError, Transport
from service.core.atomic_write import atomic_file
from service.core.errors import TransientError, UsageError
from service.core.uploads.names import shown_name

PREFIX = "/v1"

STREAM_TIMEOUT = 45.0
"""Seconds without data until a stream of events is given up; the server sends something every 15."""

POLL_EVERY = 1.0
"""Seconds between two requests when events are not available."""

MAX_OUTAGE = 300.0
"""Seconds for which `wait` tolerates a server that is unavailable."""


class Client:
    """Talks to one server.

    Args:
        url: address of the server; by default that in the environment variable `PAIRFORGE_URL`.
        api_key: by default that in `PAIRFORGE_API_KEY`; not needed if the server requires none.

    Raises:
        UsageError: the URL is missing or not valid.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        address = url or os.environ.get("PAIRFORGE_URL", "")
        self._transport = Transport(address, api_key or os.environ.get("PAIRFORGE_API_KEY", ""))
        self._http = self._transport.http

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def create_adapter(
        self,
        images: Pictures,
        masks: Pictures,
        normals: Files = (),
        *,
        held_out: HeldOut | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Resource:
        """Upload pairs and train an adapter on them.

        Args:
            images: photographs of the defect; of several defect types of one product, type → photographs.
            masks: their masks, likewise; the names are the same except for the suffix.
            normals: photographs without a defect, which every method but dualanodiff needs.
            held_out: what jobs of this adapter can be evaluated on.
            idempotency_key: key of an earlier process's request; repeating it returns the same adapter.
            options: `name`, `object`, `defect`, `base` and training options; those that are None are not sent.
        """
        parts = [*_parts("images", images), *_parts("masks", masks), *_parts("normals", normals)]
        if held_out is not None:
            for kind, files in zip(held_out._fields, held_out, strict=True):
                parts += _parts(f"held_out_{kind}", files)
        fields = {name: _form_text(value) for name, value in options.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}

        def send() -> httpx2.Response:
            with ExitStack() as open_files:
                opened = [(part, (name, open_files.enter_context(path.open("rb")))) for part, name, path in parts]
                return self._http.post(f"{PREFIX}/adapters", data=fields, files=opened, headers=headers)

        return Resource.model_validate(self._transport.answer(send).json())

    def create_job(
        self, adapter_id: str, num_pairs: int | None = None, *, idempotency_key: str | None = None, **options: Any
    ) -> Resource:
        """Generate a dataset of `num_pairs` accepted pairs; options that are None are not sent.

        Args:
            num_pairs: may be left out where `defects` says how many of each defect type, as in `{"crack": 8}`.
            idempotency_key: key of an earlier process's request; repeating it returns the same job.
            options: of sampling, `defects`, `formats`, `limits`, `max_attempts`, `placements`, `allowed`, `forbidden`,
                and `evaluation` with `profile` and `seeds`.
        """
        given = {"adapter_id": adapter_id, "num_pairs": num_pairs, **options}
        return self._create(f"{PREFIX}/jobs", given, idempotency_key)

    def replace_pairs(
        self,
        job_id: str,
        num_pairs: int,
        *,
        defects: Mapping[str, int] | None = None,
        idempotency_key: str | None = None,
    ) -> Resource:
        """Generate further pairs as a finished job did, for those that a reviewer rejected.

        Args:
            defects: how many of them show each defect type, of an adapter that learned several; spread by default.
            idempotency_key: key of an earlier process's request; repeating it returns the same job.
        """
        asked = {"num_pairs": num_pairs, "defects": defects}
        return self._create(f"{_path(job_id)}/replacements", asked, idempotency_key)

    def select_pairs(
        self,
        job_id: str,
        approved: Iterable[int | Mapping[str, Any]],
        *,
        reviewer: str,
        formats: Iterable[str] = (),
        idempotency_key: str | None = None,
    ) -> Resource:
        """Make a new dataset of the approved pairs of a job and of those that followed it.

        Args:
            approved: candidates of the job; or a mapping each, with `candidate` and perhaps `job_id`, `at` and `mask`.
            reviewer: who approved them.
            formats: further layouts of the dataset.
            idempotency_key: key of an earlier process's request; repeating it returns the same job.
        """
        pairs = [{"candidate": pair} if isinstance(pair, int) else dict(pair) for pair in approved]
        asked = {"reviewer": reviewer, "approved": pairs, "formats": list(formats)}
        return self._create(f"{_path(job_id)}/selections", asked, idempotency_key)

    def get(self, resource_id: str) -> Resource:
        return Resource.model_validate(self._transport.request("GET", _path(resource_id)).json())

    def list_adapters(self, *, state: str | None = None, after: str | None = None, limit: int = 20) -> Page:
        return self._list("adapters", state, after, limit)

    def list_jobs(self, *, state: str | None = None, after: str | None = None, limit: int = 20) -> Page:
        return self._list("jobs", state, after, limit)

    def cancel(self, resource_id: str) -> Resource:
        """Cancel a training or a job; it may be `cancelling` for a few seconds."""
        return Resource.model_validate(self._transport.request("POST", f"{_path(resource_id)}/cancel").json())

    def delete(self, resource_id: str) -> None:
        """Delete a finished adapter or job with its files."""
        self._transport.request("DELETE", _path(resource_id))

    def wait(
        self,
        resource_id: str,
        on_progress: Callable[[Resource], object] | None = None,
        *,
        timeout: float | None = None,
        poll: bool = False,
    ) -> Resource:
        """Wait until an adapter or a job has finished, through restarts of the server.

        Args:
            on_progress: called with each new state, the last included.
            timeout: seconds; None waits without limit.
            poll: ask every second, and report every time, instead of following the server's events.

        Raises:
            TimeoutError: it has not finished in time.
            TransientError: the server was unavailable for too long.
        """
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        for resource in self._states(resource_id, deadline, poll=poll or timeout is not None):
            if on_progress is not None:
                on_progress(resource)
            if resource.finished:
                return resource
        raise TimeoutError(f"{resource_id} has not finished after {timeout} s")

    def download(self, job_id: str, path: Path) -> Path:
        """Download a job's dataset; `path` appears when it is complete."""
        return self._save(f"{_path(job_id)}/dataset", path)

    def download_preview(self, job_id: str, path: Path) -> Path:
        """Download a job's contact sheet, a PNG."""
        return self._save(f"{_path(job_id)}/preview", path)

    def download_adapter(self, adapter_id: str, folder: Path) -> Path:
        """Download a trained adapter into a new folder, for `pairforge generate`."""
        listing = self._transport.request("GET", f"{_path(adapter_id)}/artifact").json()
        for file in listing["files"]:
            name = PurePosixPath(file["name"])
            if name.is_absolute() or ".." in name.parts:
                raise ApiError({"detail": f"the server lists the file {name}, which is outside the adapter's folder"})
            self._save(file["url"], folder / name)
        return folder

    def _create(self, path: str, asked: Mapping[str, Any], idempotency_key: str | None) -> Resource:
        """Create a job; what is None is not sent."""
        body = {name: value for name, value in asked.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return Resource.model_validate(self._transport.request("POST", path, json=body, headers=headers).json())

    def _list(self, kind: str, state: str | None, after: str | None, limit: int) -> Page:
        chosen = {"state": state, "cursor": after, "limit": limit}
        query = {name: value for name, value in chosen.items() if value is not None}
        return Page.model_validate(
            self._transport.answer(lambda: self._http.get(f"{PREFIX}/{kind}", params=query)).json()
        )

    def _states(self, resource_id: str, deadline: float, *, poll: bool) -> Iterator[Resource]:
        """Yield each new state until the deadline, from the stream of events or by polling."""
        cursor, streamed = "", False
        while True:
            resource = self._get_with_retry(resource_id)
            if resource.finished or not streamed:
                yield resource
            streamed = False
            # A stream may be silent beyond the deadline, so a deadline is kept by polling.
            if not poll:
                with suppress(httpx2.TransportError):
                    for event_id, changed in self._events(resource, cursor):
                        cursor, streamed = event_id, True
                        if changed.finished:
                            break
                        yield changed
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_EVERY)

    def _get_with_retry(self, resource_id: str) -> Resource:
        began = time.monotonic()
        while True:
            try:
                return self.get(resource_id)
            except (TransientError, ApiError) as error:
                refused = isinstance(error, ApiError) and error.status not in UNAVAILABLE
                if refused or time.monotonic() - began > MAX_OUTAGE:
                    raise

    def _events(self, known: Resource, cursor: str) -> Iterator[tuple[str, Resource]]:
        """Yield cursor and resource after each event that follows `cursor`; nothing if there is no stream."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor else {})}
        timeout = httpx2.Timeout(30.0, read=STREAM_TIMEOUT)
        with self._http.stream("GET", f"{_path(known.id)}/events", headers=headers, timeout=timeout) as response:
            if not response.is_success:
                return
            for event in httpx2.EventSource(response):
                news = event.json() if event.data else None
                if isinstance(news, dict) and "state" in news:
                    changed = {name: news[name] for name in ("state", "progress", "counts") if news.get(name)}
                    known = Resource.model_validate(known.model_dump() | changed)
                    yield event.id, known

    def _save(self, address: str, path: Path) -> Path:
        def fetch() -> httpx2.Response:
            with self._http.stream("GET", address, follow_redirects=True) as response:
                if not response.is_success:
                    response.read()
                    return response
                with aside.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                return response

        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as aside:
            self._transport.answer(fetch)
        return path


def _path(resource_id: str) -> str:
    kind = {"adp": "adapters", "job": "jobs"}.get(resource_id.partition("_")[0])
    if kind is None or not resource_id.replace("_", "").isalnum():
        raise UsageError(f"{resource_id!r} is not an id: ids begin with adp_ or job_")
    return f"{PREFIX}/{kind}/{resource_id}"


def _form_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parts(kind: str, pictures: Pictures) -> list[tuple[str, str, Path]]:
    """List the parts of a form: field, with the defect type where there are several; name and path of each file."""
    parts = []
    for defect, files in _by_type(pictures).items():
        named = files.items() if isinstance(files, Mapping) else ((path.name, path) for path in files)
        parts += [(f"{kind}[{defect}]", shown_name(name), path) for name, path in named]
    return parts


def _by_type(pictures: Pictures) -> Mapping[str, Files]:
    """Return defect type → files; the type of files without one is empty."""
    if not isinstance(pictures, Mapping):
        return {"": pictures}
    typed = {name: files for name, files in pictures.items() if not isinstance(files, Path)}
    return typed or {"": {name: path for name, path in pictures.items() if isinstance(path, Path)}}
