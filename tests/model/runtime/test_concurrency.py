"""Work in another thread: in order, as soon as it is done, and nothing is left of it in the end."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from model.runtime import concurrency, switches
from model.runtime.concurrency import overlapped, threaded
from model.runtime.progress import Progress
from model.runtime.switches import Switch

STEP = Progress("denoise", 1, 2, "steps")


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


class Source:
    """Three items with two steps before each; counts what was asked of it."""

    def __init__(self) -> None:
        self.steps = 0
        self.items = 0
        self.closed = False

    def __call__(self) -> Generator[Progress | int, None, None]:
        try:
            for number in range(3):
                for _ in range(2):
                    self.steps += 1
                    yield STEP
                self.items += 1
                yield number
        finally:
            self.closed = True


def test_results_come_in_order_with_all_progress() -> None:
    source = Source()
    items = list(overlapped(source(), lambda number: 10 * number, ahead=2))
    assert [item for item in items if isinstance(item, int)] == [0, 10, 20]
    assert items.count(STEP) == 6


def test_without_a_second_thread_results_and_progress_are_the_same() -> None:
    source = Source()
    fast = list(overlapped(Source()(), lambda number: 10 * number, ahead=2))
    with switches.plain(Switch.OVERLAPPED):
        plain = list(overlapped(source(), lambda number: (10 * number, threading.get_ident()), ahead=2))
    results = [item for item in plain if isinstance(item, tuple)]
    assert [result for result, _ in results] == [item for item in fast if isinstance(item, int)]
    assert {thread for _, thread in results} == {threading.get_ident()}
    assert plain.count(STEP) == fast.count(STEP) == source.steps
    assert source.closed


def test_the_work_is_done_by_one_other_thread() -> None:
    threads = set(overlapped(Source()(), lambda _: threading.get_ident(), ahead=2)) - {STEP}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_result_is_yielded_between_the_next_steps() -> None:
    source, done = Source(), threading.Event()
    for item in overlapped(source(), lambda number: (done.set(), number)[1], ahead=2):
        if isinstance(item, int):
            break
        if source.items == 1:
            assert done.wait(10)
    assert item == 0
    assert (source.steps, source.items) in {(2, 1), (3, 1), (4, 1)}


def test_the_next_item_is_computed_while_work_is_going_on() -> None:
    source, another = Source(), threading.Event()

    def work(number: int) -> int:
        assert number > 0 or another.wait(10)
        return number

    results = []
    for item in overlapped(source(), work, ahead=1):
        if source.steps == 4:
            another.set()
        if isinstance(item, int):
            results.append(item)
    assert results == [0, 1, 2]


def test_no_more_than_so_many_wait() -> None:
    source, made = Source(), []

    def work(number: int) -> int:
        made.append((number, source.items))
        return number

    list(overlapped(source(), work, ahead=0))
    assert made == [(0, 1), (1, 2), (2, 3)]


def test_what_may_be_enough_is_waited_for() -> None:
    source = Source()
    items = overlapped(source(), lambda number: number, ahead=3, enough=lambda waiting: waiting == 1)
    results = [(item, source.steps) for item in items if isinstance(item, int)]
    assert results == [(0, 2), (1, 4), (2, 6)]


def test_an_error_of_the_work_ends_both() -> None:
    source = Source()

    def work(number: int) -> int:
        if number:
            raise ValueError(f"broke at {number}")
        return number

    results = []
    with pytest.raises(ValueError, match="broke at 1"):
        results.extend(item for item in overlapped(source(), work, ahead=3))
    assert source.closed


def test_an_error_of_the_source_ends_the_work() -> None:
    begun, done = threading.Event(), []

    def source() -> Generator[Progress | int, None, None]:
        yield 0
        yield 1
        assert begun.wait(10)
        raise RuntimeError("out of items")

    def work(number: int) -> int:
        begun.set()
        done.append(number)
        return number

    with pytest.raises(RuntimeError, match="out of items"):
        list(overlapped(source(), work, ahead=3))
    assert 0 in done


def test_nobody_wanting_more_ends_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what waits: the work that is going on ends only when no other can begin."""
    source, going_on, done = Source(), threading.Event(), []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  as the parent's
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            going_on.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(concurrency, "ThreadPoolExecutor", Pool)

    def work(number: int) -> int:
        assert going_on.wait(10)
        done.append(number)
        return number

    items = overlapped(source(), work, ahead=3)
    while source.items < 2:
        next(items)
    items.close()
    assert source.closed
    assert done == [0]


def test_several_threads_give_results_in_the_order_of_items() -> None:
    both = threading.Barrier(2, timeout=10)

    def work(number: int) -> int:
        both.wait()
        return 10 * number

    assert list(threaded(range(6), work, threads=2)) == [0, 10, 20, 30, 40, 50]


def test_items_are_taken_a_few_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            taken.append(number)
            yield number

    results = threaded(items(), lambda number: number, threads=2)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert [*results] == list(range(1, 9))


def test_an_error_of_one_thread_is_raised_in_its_place() -> None:
    results = []
    with pytest.raises(ZeroDivisionError):
        results.extend(threaded([2, 1, 0, 1], lambda number: 2 // number, threads=3))
    assert results == [1, 2]


def test_where_both_need_the_same_cores_the_calling_thread_does_both() -> None:
    source, threads = Source(), set()

    def work(number: int) -> int:
        threads.add(threading.current_thread())
        return 10 * number

    items = list(overlapped(source(), work, ahead=2, beside=False))
    assert [item for item in items if isinstance(item, int)] == [0, 10, 20]
    assert threads == {threading.current_thread()}
