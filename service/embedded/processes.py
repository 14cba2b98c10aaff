"""Child processes that cannot outlive their parent, whatever ends it.

Three things see to that. The kernel kills every direct child when its parent dies (`service.embedded.parent_death`). A
guard (`service.embedded.guard`) waits for the parent's end and kills what the children themselves had started. And
every process of a stack carries the stack's folder in its environment, by which the next stack in that folder finds,
and ends, whatever both of them missed.
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
"""Environment variable of every process of a stack: the stack's folder."""

LARGEST_LOG = 10 * 2**20
"""Bytes; what a longer log holds is put aside, so a process's logs take little more than twice as much."""

SOON = 0.05
"""Seconds between two looks at a process that is about to end."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is run as a child.

    Attributes:
        name: what people call it; its log has this name.
        arguments: the program and what it is given.
        environment: added to the parent's own.
        patience: seconds it gets to end after SIGTERM.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = 10.0


class Child:
    """A running `Command`, in a session of its own: a Ctrl-C in the terminal reaches the parent only.

    Args:
        command: what to run.
        mark: the stack's folder, which is also where the program runs.
        logs: folder of the log that takes stdout and stderr.
    """

    def __init__(self, command: Command, mark: Path, logs: Path) -> None:
        self.command = command
        self.log = logs / f"{command.name}.log"
        self.started = time.monotonic()
        self.bound_log()
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
        """How the process ended, in words; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def ask_to_end(self) -> None:
        """SIGTERM to the process itself; what it has started is its own to end."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Whether the process ended in that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL to the process and to all that it left behind in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def bound_log(self) -> None:
        """Put a log that has grown too long aside; what is written during that moment is lost."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
            # The process writes on from the beginning, as it appends.
            os.truncate(self.log, 0)

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def marked(mark: Path) -> list[int]:
    """Processes of the stack in the folder `mark`, this one excepted."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_marked(mark: Path, seconds: float = 10.0) -> int:
    """Kill every process of the stack in the folder `mark`, and wait until they are gone. Returns how many there were.

    Raises:
        TimeoutError: some are still there after that time.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + seconds
    while found := marked(mark):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {', '.join(map(str, found))} of {mark} cannot be ended")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        time.sleep(SOON)
    return len(ended)
