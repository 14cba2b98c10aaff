"""Measures whether the API's shortcuts are worthwhile: `python -m bench.bypasses`, four minutes on two idle cores.

The same load runs on the same job, while it runs: on the API as it is; on the plain API, without fast routes, pipelined
Redis and frozen garbage collector; and on two plain processes on one port. The three take turns, so that a slow moment
of the machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

import httpx2
from fastapi import FastAPI

from bench.load import Load
from bench.service import CONNECTIONS, LONG_JOB, TARGET_RATE
from bench.sides import ROOT, Service, processor_seconds, service
from service import main as app_module
from service.api import fast_routes, services
from service.core.connections import connect_async
from service.core.settings import Settings
from service.core.telemetry import Telemetry

VARIANTS = {
    "as it is, one process": ("service.main:create_app", 1),
    "plain, one process": ("bench.bypasses:create_plain_app", 1),
    "plain, two processes": ("bench.bypasses:create_plain_app", 2),
}

START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of a load on one variant.

    Attributes:
        core_ms: processor time of the API's processes per request.
    """

    variant: str
    load: Load
    core_ms: float


def create_plain_app() -> FastAPI:
    """Make the API without its shortcuts, with FastAPI and redis-py unchanged."""

    def connect(settings: Settings, telemetry: Telemetry) -> object:
        return connect_async(settings, telemetry, 2 * CONNECTIONS)

    # The patches stay: connections are made when the app starts.
    patch.object(fast_routes, "install", lambda _: None).start()
    patch.object(app_module, "_forget_what_stays", lambda: None).start()
    patch.object(services, "connect_pipelined", connect).start()
    return app_module.create_app()


def measure(folder: Path, rounds: int, seconds: float) -> list[Answered]:
    """Measure all variants in turn, each at the target rate and at its limit."""
    found: list[Answered] = []
    with service(folder / "stack", 1, 1) as asked, ExitStack() as running:
        adapter = asked.train()
        job = asked.begin(adapter, LONG_JOB, 0)
        for resource in iter(lambda: asked.client.get(job), None):
            if (resource.counts or {}).get("attempts"):
                break
        servers = {
            name: running.enter_context(_server(asked, factory, processes))
            for name, (factory, processes) in VARIANTS.items()
        }
        for turn in range(rounds):
            for rate in (TARGET_RATE, 0.0):
                for name, (url, process) in servers.items():
                    found.append(_load(name, f"{url}/v1/jobs/{job}", asked.key, process, seconds, rate))
                    last = found[-1]
                    sys.stderr.write(
                        f"round {turn + 1} of {rounds}, {name}: {last.load.rate:.0f}/s, p50 {last.load.p50_ms:.1f} ms, "
                        f"p99 {last.load.p99_ms:.1f} ms, {last.core_ms:.2f} ms of a core per request\n"
                    )
        if asked.client.get(job).state != "running":
            raise RuntimeError(f"{job} ended too early, during the measurement")
        asked.client.cancel(job)
    return found


@contextmanager
def _server(asked: Service, factory: str, processes: int) -> Iterator[tuple[str, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--factory", factory, "--host", "127.0.0.1", "--port", str(port), "--workers", str(processes)]
    arguments += ["--http", "service.api.http:LimitedProtocol", "--no-access-log", "--no-server-header"]
    environment = {**os.environ, **asked.environment, "PAIRFORGE_LOG_LEVEL": "warning"}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "uvicorn", *arguments], cwd=ROOT, env=environment) as process:  # noqa: S603
        try:
            _wait(url)
            yield url, process.pid
        finally:
            process.terminate()


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx2.get(f"{url}/healthz").raise_for_status()
        except httpx2.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _load(variant: str, url: str, key: str, process: int, seconds: float, rate: float) -> Answered:
    arguments = [url, "--connections", str(CONNECTIONS), "--seconds", str(seconds), "--rate", str(rate)]
    before = _processor_seconds(process)
    run = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "bench.load", *arguments],
        env={**os.environ, "PAIRFORGE_API_KEY": key},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    load = Load(**json.loads(run.stdout))
    return Answered(variant, load, 1e3 * (_processor_seconds(process) - before) / load.requests)


def _processor_seconds(process: int) -> float:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    return sum(processor_seconds(each) for each in (process, *map(int, children)))


def table(found: list[Answered]) -> str:
    """Return the medians over the rounds as a Markdown table."""
    rows = ["| the API, beside a job | load | answered | p50 | p99 | of a core per request |\n"]
    rows.append("|---|---|---:|---:|---:|---:|\n")
    for wanted in sorted({each.load.wanted for each in found}, reverse=True):
        for name in VARIANTS:
            runs = [each for each in found if each.variant == name and each.load.wanted == wanted]
            rate, p50, p99, core = (
                median(values)
                for values in zip(
                    *((each.load.rate, each.load.p50_ms, each.load.p99_ms, each.core_ms) for each in runs), strict=True
                )
            )
            asked = f"{wanted:g}/s" if wanted else "unlimited"
            rows.append(f"| {name} | {asked} | {rate:.0f}/s | {p50:.1f} ms | {p99:.1f} ms | {core:.2f} ms |\n")
    return "".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--into", type=Path, default=Path("runs/bench"), help="folder for the results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pairforge-bench-") as folder:
        found = measure(Path(folder), chosen.rounds, chosen.seconds)
    chosen.into.mkdir(parents=True, exist_ok=True)
    (chosen.into / "bypasses.json").write_text(json.dumps([asdict(each) for each in found], indent=1), encoding="utf-8")
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
