"""Starts the processes of a stack in order, starts again what dies, stops all of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from service.core.errors import TransientError, UsageError
from service.embedded import servers
from service.embedded.binaries import check_redis, find_rclone, find_redis
from service.embedded.folder import DataFolder, Running
from service.embedded.parent_death import PYTHON
from service.embedded.ports import check_host, claim_port, free_ports, is_loopback, join
from service.embedded.processes import MARK, Child, Command, end_marked

START_SECONDS = 120.0
"""Until every server has to serve; on a slow disk Redis may read its log for long."""

LOOK_EVERY = 0.1

LONGEST_PAUSE = 30.0
"""Seconds before a process that dies again and again is started once more."""

STEADY_AFTER = 60.0
"""Seconds; a process that ran for so long died of something new."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What the user chose.

    Attributes:
        data_dir: the folder of all that is kept.
        host: address of API and S3.
        port: of the API; None for a free one.
        workers: processes that train and generate.
        require_keys: also where only this machine reaches the API.
    """

    data_dir: Path
    host: str = servers.LOOPBACK
    port: int | None = None
    workers: int = 1
    require_keys: bool = False


@dataclass(slots=True)
class _Post:
    """A command that is to run at all times.

    Attributes:
        child: None while it waits to be started again.
        failures: deaths in a row.
        due: when to start it again, on the monotonic clock.
    """

    command: Command
    child: Child | None
    failures: int = 0
    due: float = 0.0


class Stack:
    """The processes of one data folder. Children end with the thread that started them: use it from the main one.

    Args:
        options: what the user chose.
        tell: where remarks on what happens go, one sentence each.

    Raises:
        UsageError: listing everything that cannot be as it was chosen.
    """

    def __init__(self, options: StackOptions, tell: Callable[[str], None]) -> None:
        self._options = options
        self._tell = tell
        self._redis, self._rclone = _checked(options)
        self._folder = DataFolder(options.data_dir)
        self._posts: list[_Post] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def path(self) -> Path:
        return self._folder.path

    def start(self) -> Running:
        """Start everything and wait until the API is ready.

        Raises:
            UsageError: the port is taken, or the folder is a newer Redis'.
            TransientError: a process does not come up; says what it said.
        """
        folder, host, workers = self._folder, self._options.host, self._options.workers
        check_redis(self._redis, folder.path / "redis")
        if left := end_marked(folder.path):
            self._tell(f"ended {left} processes that an earlier run left behind")
        folder.clear_spool()
        self._guard = _guard(folder.path)
        credentials = folder.credentials()
        # Each port is taken by its server before the next is chosen.
        redis_port, password = claim_port(servers.LOOPBACK), credentials.redis_password
        self._run([servers.redis_command(self._redis, folder.path / "redis", redis_port, password)])
        self._await(partial(servers.redis_serves, redis_port, password))
        s3_port = claim_port(host)
        self._run([servers.s3_command(self._rclone, folder.path / "objects", host, s3_port, credentials)])
        self._await(partial(servers.accepts, host, s3_port))
        require_keys = self._options.require_keys or not is_loopback(host)
        settings = servers.service_settings(
            folder.path, credentials, redis_port, join(host, s3_port), require_keys=require_keys
        )
        port = claim_port(host, self._options.port)
        self._run([servers.api_command(host, port, settings)])
        metrics_ports = free_ports(servers.LOOPBACK, workers)
        self._run(
            [
                servers.worker_command(number, workers, settings, folder.path / "metrics", metrics_port)
                for number, metrics_port in enumerate(metrics_ports, start=1)
            ]
        )
        metrics = [f"http://{join(servers.LOOPBACK, metrics_port)}/metrics" for metrics_port in metrics_ports]
        running = Running(os.getpid(), f"http://{join(host, port)}", settings, metrics)
        self._await(partial(servers.api_is_ready, running.url))
        folder.announce(running)
        return running

    def tend(self) -> None:
        """Start again what has died, each time after a longer pause, and keep logs short. Call it often."""
        now = time.monotonic()
        for post in self._posts:
            if post.child is None:
                if now >= post.due:
                    post.child = self._spawn(post.command)
            elif how := post.child.ended():
                post.child.kill()
                post.failures = 1 if now - post.child.started > STEADY_AFTER else post.failures + 1
                pause = min(LONGEST_PAUSE, 0.25 * 2**post.failures)
                post.due = now + pause
                self._tell(f"{post.command.name} {how}; it starts again in {pause:g} s (see {post.child.log})")
                post.child = None
            else:
                post.child.bound_log()

    def stop(self) -> None:
        """End everything: the API first, then the workers, which hand their work over, then what these need."""
        try:
            for names in (("api",), ("worker",), ("s3",), ("redis",)):
                self._end([post.child for post in self._posts if post.child and post.command.name.startswith(names)])
        finally:
            self._posts.clear()
            end_marked(self._folder.path)
            if self._guard is not None:
                self._guard.communicate()
            self._folder.close()

    def _end(self, children: Sequence[Child]) -> None:
        for child in children:
            child.ask_to_end()
        for child in children:
            if not child.wait(child.command.patience):
                self._tell(f"{child.command.name} does not end: it is killed")
            child.kill()

    def _run(self, commands: Sequence[Command]) -> None:
        self._posts += [_Post(command, self._spawn(command)) for command in commands]

    def _spawn(self, command: Command) -> Child:
        return Child(command, self._folder.path, self._folder.logs)

    def _await(self, serves: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not serves():
            children = [post.child for post in self._posts if post.child is not None]
            for child in children:
                if how := child.ended():
                    raise TransientError(f"{child.command.name} {how}, saying:\n{child.last_words()}")
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{children[-1].command.name} does not serve after {START_SECONDS:g} s; see {children[-1].log}"
                )
            time.sleep(LOOK_EVERY)


def _checked(options: StackOptions) -> tuple[Path, Path]:
    """Redis' and rclone's programs, once all that can be checked before was checked."""
    checks: list[Callable[[], object]] = [
        partial(_check_workers, options.workers),
        partial(_check_address, options.host, options.port),
    ]
    problems: list[str] = []
    programs: list[Path] = []
    for check in [*checks, find_redis, find_rclone]:
        try:
            if isinstance(found := check(), Path):
                programs.append(found)
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems, "the stack cannot start")
    return programs[0], programs[1]


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it must be at least 1")


def _check_address(host: str, port: int | None) -> None:
    check_host(host)
    claim_port(host, port)


def _guard(folder: Path) -> subprocess.Popen[bytes]:
    """A process that ends what is left of the stack, should this one be killed."""
    return subprocess.Popen(  # noqa: S603 - our own module
        [*PYTHON, "service.embedded.guard"],
        stdin=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, MARK: str(folder)},
        start_new_session=True,
    )
