"""Which tests a run leaves out, told at its end, and which have their turn on which day."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import TypeVar

import pytest

T = TypeVar("T")

A_DAY = 3
"""So many tests have their turn on one day."""

DESELECTED = pytest.StashKey[Counter[str]]()
"""How many tests of each kind the session did not select."""

TO_RUN = {"fault": "make test-faults", "ordinary": "make test"}
"""The command for each kind of test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--day",
        type=date.fromisoformat,
        metavar="YYYY-MM-DD",
        help=f"of the selected tests, run the {A_DAY} whose turn it is on that day; all of them come round",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DESELECTED] = Counter()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    day: date | None = config.getoption("day")
    if day is not None:
        chosen = in_turn(items, day)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def in_turn(items: list[T], day: date) -> list[T]:
    """Three, far from each other in the list, or fewer where there are no more."""
    if not items:
        return []
    days = math.ceil(len(items) / A_DAY)
    first = day.toordinal() % days
    return [items[place] for place in sorted({(first + number * days) % len(items) for number in range(A_DAY)})]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        kind = "fault" if item.get_closest_marker("faults") else "ordinary"
        item.config.stash[DESELECTED][kind] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run in processes of their own (pytest-xdist), only those know what they did not select."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = dict(session.config.stash[DESELECTED])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    told = getattr(node, "workeroutput", {})
    node.config.stash[DESELECTED] |= Counter(told.get("deselected", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = [
        f"{_tests(number, kind + ' ')}: {TO_RUN[kind]}" for kind, number in sorted(config.stash[DESELECTED].items())
    ]
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    lines += [f"{_tests(number)} skipped: {reason}" for reason, number in reasons.most_common()]
    if lines:
        terminalreporter.section("left out")
        for line in lines:
            terminalreporter.line(line)


def _tests(number: int, kind: str = "") -> str:
    return f"{number} {kind}test{'s' * (number != 1)}"
