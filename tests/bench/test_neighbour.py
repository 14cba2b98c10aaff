"""The benchmark of training beside a busy process: what is measured, and what its table says of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from bench.neighbour import Speed, _measured, neighbour_table


def test_the_table_says_whether_the_shipped_settings_keep_their_targets() -> None:
    ways = {"kept": (10.0, 9.0, 5.0), "slow alone": (10.0, 8.0, 7.9), "slow beside": (10.0, 10.0, 4.0)}
    speeds = []
    for way, (spinning, alone, beside) in ways.items():
        speeds += [Speed(way, "spinning", spinning, 0.5), Speed(way, "as shipped", alone, beside)]
    lines = neighbour_table(speeds).splitlines()[2:]
    assert ["kept |" in line for line in lines[1::2]] == [True, False, False]
    assert ["MISSED |" in line for line in lines[1::2]] == [False, True, True]


def test_a_speed_is_steps_over_the_time_between_two_reports() -> None:
    def told() -> Iterator[int]:
        """Five steps twenty times a second, as far as the machine keeps up; the first reports are of the start."""
        yield from (0, 0, 1)
        for steps in itertools.count(5, 5):
            time.sleep(0.05)
            yield steps

    alone, beside = _measured(told(), 0.5)
    assert 0 < alone <= 100
    assert 0 < beside <= 100
