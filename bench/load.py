"""Sends requests to one address, in a process: `python -m bench.load URL --connections 16 --seconds 10 --rate 500`.

It shares the cores with the measured server, so it does as little as possible: HTTP/1.1 over persistent connections,
the same bytes every time, no parsing beyond status and length. The API key is read from `PAIRFORGE_API_KEY`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from urllib.parse import urlsplit

import uvloop

from service.core.strict_json import to_json

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load.

    Attributes:
        wanted: target of requests per second; 0 for no limit.
        rate: requests answered per second.
        p50_ms, p99_ms, max_ms: latencies. With a target rate they start when a request was due, so that a server that
            falls behind does not hide it by getting fewer requests.
        wrong: answers other than 200.
        core_share: share of one core that this process used.
    """

    wanted: float
    connections: int
    requests: int
    wrong: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    core_share: float


async def measure(url: str, api_key: str, connections: int, seconds: float, wanted: float) -> Load:
    """Request `url` repeatedly, over all connections at once."""
    place = urlsplit(url)
    headers = f"Host: {place.netloc}\r\nAuthorization: Bearer {api_key}\r\n"
    request = f"GET {place.path} HTTP/1.1\r\n{headers}\r\n".encode()
    streams = [await asyncio.open_connection(place.hostname, place.port) for _ in range(connections)]
    turns, latencies, wrong = count(), [], 0
    began, used = time.perf_counter(), _processor_seconds()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wrong
        for due in _due(turns, began, seconds, wanted):
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            sent = due if wanted else time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            latencies.append(time.perf_counter() - sent)
            wrong += b" 200 " not in head[:16]

    await asyncio.gather(*(ask(*stream) for stream in streams))
    took, used = time.perf_counter() - began, _processor_seconds() - used
    for _, writer in streams:
        writer.close()
    hundredths = statistics.quantiles(latencies, n=100)
    return Load(
        wanted=wanted,
        connections=connections,
        requests=len(latencies),
        wrong=wrong,
        rate=len(latencies) / took,
        p50_ms=1e3 * hundredths[49],
        p99_ms=1e3 * hundredths[98],
        max_ms=1e3 * max(latencies),
        core_share=used / took,
    )


def _due(turns: Iterator[int], began: float, seconds: float, wanted: float) -> Iterator[float]:
    """Yield when the requests of one connection are due; all connections share `turns`."""
    while True:
        due = began + next(turns) / wanted if wanted else time.perf_counter()
        if due > began + seconds:
            return
        yield due


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=0, help="requests per second; 0 for no limit")
    chosen = parser.parse_args()
    key = os.environ.get("PAIRFORGE_API_KEY", "")
    load = uvloop.run(measure(chosen.url, key, chosen.connections, chosen.seconds, chosen.rate))
    sys.stdout.write(to_json(asdict(load)) + "\n")


if __name__ == "__main__":
    main()
