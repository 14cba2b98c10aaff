"""Child processes that cannot outlive their parent, even if it is killed.

Three mechanisms ensure that. The kernel kills every direct child when its parent dies
(`service.embedded.parent_death`). A guard (`service.embedded.guard`) waits for the parent's end and kills the
children's own children. And every process of a stack has the stack's folder in its environment, by which the next stack
in that folder finds and kills what both have missed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.embedded.parent_death import ended_with_parent

MARK = "PAIRFORGE_STACK"
"""Environment variable of every process of a stack; its value is the stack's folder."""

LARGEST_LOG = 10 * 2**20
"""Size in bytes at which a log is rotated, so a process's logs take little more than twice as much."""

SOON = 0.05
"""Seconds between two checks of a process that is about to end."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run as a child process.

    Attributes:
        name: name in messages and of the log.
        arguments: the program and its arguments.
        environment: variables added to the parent's own.
        patience: seconds that it gets to end after SIGTERM.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = 10.0


class Child:
    """A running `Command` in its own session, so that a Ctrl-C in the terminal reaches only the parent.

    Args:
        command: the command to run.
        mark: the stack's folder, which is also the working directory.
        logs: folder of the log that receives stdout and stderr.
    """

    def __init__(self, command: Command, mark: Path, logs: Path) -> None:
        self.command = command
        self.log = logs / f"{command.name}.log"
        self.started = time.monotonic()
        self.rotate_log()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the programs are found by `binaries`
                ended_with_parent(command.arguments, signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=mark,
                env={**os.environ, **command.environment, MARK: str(mark)},
                start_new_session=True,
                umask=0o077,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> str:
        """Describe how the process ended; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

    def terminate(self) -> None:
        """Send SIGTERM to the process itself, which ends its own children."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process; returns whether it ended in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def kill(self) -> None:
        """Send SIGKILL to the process and to its remaining children in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def rotate_log(self) -> None:
        """Rotate the log if it has grown too long; lines written at that moment are lost."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
            # The process appends, so it continues at the new end.
            os.truncate(self.log, 0)

    def log_tail(self, lines: int = 5) -> str:
        """Read the last lines of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def marked(mark: Path) -> list[int]:
    """Find the processes of the stack in the folder `mark`, except this one."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_marked(mark: Path, seconds: float = 10.0) -> int:
    """Kill every process of the stack in the folder `mark` and wait until they have ended. Returns their number.

    Raises:
        TimeoutError: some still run after that time.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + seconds
    while found := marked(mark):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {', '.join(map(str, found))} of the stack in {mark} cannot be killed")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        time.sleep(SOON)
    return len(ended)
