"""Sends requests, and repeats them when the connection breaks or the server is unavailable for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from ipaddress import ip_address
from typing import Any

import httpx2

from service.core.errors import TransientError, UsageError

ATTEMPTS = 5
"""Number of times a request is sent at most."""

LONGEST_PAUSE = 10.0
"""Longest pause between two attempts in seconds, unless the server asks for more."""

LONGEST_ASKED = 60.0
"""Longest pause in seconds that a server may ask for."""

UNAVAILABLE = frozenset({502, 503, 504, 507})
"""Statuses of a temporary failure; 507 means that the disk is full."""

TIMEOUT = httpx2.Timeout(30.0, read=120.0, write=120.0)


class ApiError(Exception):
    """The server refused a request.

    Args:
        problem: its problem document (RFC 9457): `status`, `code`, `detail`, and `errors` with one entry per mistake.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.problem = dict(problem)
        self.status = int(problem.get("status", 0))
        self.code = str(problem.get("code", ""))
        super().__init__("\n".join(self.problems))

    @property
    def problems(self) -> list[str]:
        """One sentence per mistake."""
        entries = [entry for entry in self.problem.get("errors", ()) if "detail" in entry]
        sentences = [": ".join(filter(None, [_place(entry), str(entry["detail"])])) for entry in entries]
        return sentences or [str(self.problem.get("detail") or self.problem.get("title") or f"status {self.status}")]


class Transport:
    """Sends requests to one server.

    Args:
        url: address of the server.
        api_key: sent with every request to this server, and to no other; empty for none.

    Raises:
        UsageError: the URL is not valid.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        try:
            parsed = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise UsageError(f"{self.url!r} is not a URL ({error}); it must be like http://127.0.0.1:8000") from error
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise UsageError(f"{self.url!r} is not the URL of a server; it must be like http://127.0.0.1:8000")
        self.http = httpx2.Client(
            base_url=self.url,
            auth=_OriginAuth(parsed, api_key) if api_key else None,
            timeout=TIMEOUT,
            # A proxy from the environment is not for this machine's own addresses.
            trust_env=not _is_local(parsed.host),
        )

    def request(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """Send a request whose content can be sent again unchanged; see `answer`."""
        return self.answer(lambda: self.http.request(method, path, **content))

    def answer(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """Send a request, again while the server is unavailable, and return the response.

        Raises:
            ApiError: the server refuses it.
            TransientError: the server cannot be reached.
        """
        for attempt in range(1, ATTEMPTS + 1):
            pause = min(LONGEST_PAUSE, 0.25 * 2**attempt)
            try:
                response = send()
            except httpx2.TransportError as error:
                if attempt == ATTEMPTS:
                    raise TransientError(f"{self.url} cannot be reached: {error}") from error
            else:
                if response.is_success:
                    return response
                if response.status_code not in UNAVAILABLE or attempt == ATTEMPTS:
                    raise ApiError(_problem(response))
                pause = max(pause, _retry_after(response))
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


class _OriginAuth(httpx2.Auth):
    """Sends the key to one server only: links in its responses lead to other servers, which must not see it."""

    def __init__(self, server: httpx2.URL, api_key: str) -> None:
        self._origin = _origin(server)
        self._value = f"Bearer {api_key}"

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = self._value
        yield request


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _problem(response: httpx2.Response) -> dict[str, Any]:
    """Return the problem document, or make one for a response without one, such as a proxy's."""
    if response.headers.get("Content-Type", "").partition(";")[0] == "application/problem+json":
        problem = response.json()
        if isinstance(problem, dict):
            return {"status": response.status_code, **problem}
    detail = f"{response.request.url.host} answered {response.status_code} {response.reason_phrase}"
    return {"status": response.status_code, "detail": detail}


def _place(entry: Mapping[str, Any]) -> str:
    return str(entry.get("pointer", "")).lstrip("/") or str(entry.get("parameter", ""))


def _retry_after(response: httpx2.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(LONGEST_ASKED, float(value)) if value.isdecimal() else 0.0


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
