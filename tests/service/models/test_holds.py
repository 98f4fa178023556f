"""Calls that run a model more than once, and who waits for them."""

import asyncio

from taxon.service.models.holds import Holds


async def test_a_model_is_let_go_when_the_last_call_is_done_with_it():
    holds = Holds()
    await holds.let_go(1)
    with holds.held(1):
        with holds.held(1), holds.held(2):
            waiting = [asyncio.create_task(holds.let_go(model)) for model in (1, 2)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
        await waiting[1]
        await asyncio.sleep(0)
        assert not waiting[0].done()
    await waiting[0]


async def test_a_call_that_fails_lets_go_too():
    holds = Holds()
    try:
        with holds.held(1):
            raise KeyError
    except KeyError:
        await holds.let_go(1)
