"""Turns at what only a few may do at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import httpx2

from service.api.turns import Turns
from tests.service.api.test_decoding import FORM, large
from tests.service.api.uploads import pairs, part


def served(requests: str, gone: Collection[int] = ()) -> str:
    """Keys in the order in which one place serves their requests, the first of which holds it as the others come."""

    async def run() -> str:
        turns, order = Turns(1), list[str]()
        leave = asyncio.Event()

        async def ask(key: str) -> None:
            async with turns.turn(key):
                order.append(key)
                await leave.wait()

        tasks = []
        for key in requests:
            tasks.append(asyncio.create_task(ask(key)))
            await asyncio.sleep(0)
        for number in gone:
            tasks[number].cancel()
        leave.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(1), turns.turn("last"):
            return "".join(order)

    return asyncio.run(run())


def test_keys_take_turns() -> None:
    assert served("aaaabbc") == "aabcab" + "a"


def test_who_gives_up_is_left_out_and_keeps_no_place() -> None:
    assert served("aaabb", gone={1, 3}) == "aab"
    assert served("ab", gone={1}) == "a"


def test_a_small_upload_does_not_wait_for_large_ones(new_client: Callable[..., httpx2.Client]) -> None:
    greedy, other = new_client(), new_client()
    picture = large(3000)
    big = [part("images", f"tile_{index}.png", picture) for index in range(2)]
    big += [part("masks", f"tile_{index}.png", picture) for index in range(2)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(greedy.post, "/v1/adapters", data=FORM, files=big) for _ in range(2)]
        while not any(future.running() for future in waiting):
            pass
        assert other.post("/v1/adapters", data=FORM, files=pairs()).status_code == 202
        assert not all(future.done() for future in waiting)
