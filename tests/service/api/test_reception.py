"""Turns of large messages: in how much memory, and who comes first."""

import asyncio
import contextlib

import pytest

from taxon.service.api import caller, reception
from taxon.service.api.reception import Reception
from taxon.service.errors import DeadlineTooShortError, QueueFullError
from taxon.v1 import classification_service_pb2 as pb


class Call:
    """A message of so many bytes, of a caller; or one that never comes."""

    def __init__(self, who, byte_count=2):
        self._who, self._byte_count = who, byte_count

    def peer(self):
        return self._who

    async def read(self):
        await asyncio.sleep(0)
        return pb.ClassifyRequest(image=bytes(self._byte_count - 2))


class Silent(Call):
    async def read(self):
        await asyncio.Event().wait()


async def received(turns, call):
    async with turns.message(call) as message:
        return message


async def proven(turns, *whos):
    """They have sent something before."""
    for who in whos:
        await received(turns, Call(who))


def begun(turns, *calls):
    return [asyncio.create_task(received(turns, call)) for call in calls]


async def ended(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("byte_count", "most"), [(90, 2), (20, 6), (2, 20)])
async def test_large_messages_are_received_in_turns(byte_count, most):
    """However many callers send them at once; those that turn out to be small leave room for others."""
    turns, sizes, now = Reception(200, 100), [], 0
    whos = [str(number) for number in range(20)]
    await proven(turns, *whos)

    async def work(who):
        nonlocal now
        async with turns.message(Call(who, byte_count)) as message:
            assert message.ByteSize() == byte_count
            now += 1
            sizes.append(now)
            await asyncio.sleep(0.01)
            now -= 1

    await asyncio.gather(*map(work, whos))
    assert max(sizes) == most
    assert len(sizes) == 20


@pytest.mark.parametrize("turn_count", [1, 2, 4])
async def test_everything_that_was_taken_comes_back(turn_count):
    """Whether messages come, do not come, or their callers leave: before their turn, during it, afterwards."""
    turns = Reception(100 * turn_count, 100)
    for _ in range(30):
        tasks = begun(turns, *(kind(str(number % 5), 50) for number in range(9) for kind in (Call, Silent)))
        await settled()
        await ended(*tasks)
    assert turns._free_bytes == 100 * turn_count
    assert not turns._turns.total()
    assert not turns._waiting
    assert not turns._waiting_count
    assert not turns._patience
    await asyncio.gather(*begun(turns, *(Call(str(number), 100) for number in range(20))))


async def test_who_leaves_while_waiting_for_a_turn_takes_none_away():
    turns = Reception(100, 100)

    async def work(who):
        async with turns.message(Call(who, 100)):
            await asyncio.sleep(0.01)

    first, left, third = (asyncio.create_task(work(who)) for who in "abc")
    await settled()
    left.cancel()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_a_caller_who_sends_nothing_loses_his_turn(monkeypatch):
    monkeypatch.setattr(reception, "TURN_S", 0.01)
    turns = Reception(1, 1)
    with pytest.raises(DeadlineTooShortError):
        await received(turns, Silent("a"))
    await received(turns, Call("b"))


async def test_silent_callers_take_nothing_from_those_who_have_sent_before():
    """Of however many connections and calls."""
    turns = Reception(400, 100)
    await proven(turns, "neighbour", "another")
    silent = begun(turns, *(Silent(f"silent {number % 40}") for number in range(400)))
    await settled()
    async with asyncio.timeout(0.1):  # less than any turn lasts
        for _ in range(20):
            await asyncio.gather(received(turns, Call("neighbour", 90)), received(turns, Call("another", 90)))
    await ended(*silent)


async def test_a_new_caller_waits_for_short_turns_only_and_no_longer_than_others(monkeypatch):
    """Not behind all calls of those who came first."""
    monkeypatch.setattr(reception, "SHORT_TURN_S", 0.02)
    turns = Reception(400, 100)
    silent = begun(turns, *(Silent(f"silent {number % 2}") for number in range(400)))
    await settled()
    async with asyncio.timeout(1):  # of 5 s, or of 400 times 0.02 s
        await received(turns, Call("new"))
    await ended(*silent)


async def test_a_new_caller_comes_before_those_who_were_silent(monkeypatch):
    """However many they are."""
    monkeypatch.setattr(reception, "SHORT_TURN_S", 0.02)
    turns = Reception(400, 100)
    silent = begun(turns, *(Silent(f"silent {number % 40}") for number in range(400)))
    await asyncio.sleep(40 / 2 * 0.02 + 0.2)  # each has had its turn
    async with asyncio.timeout(0.1):
        await received(turns, Call("new"))
    await ended(*silent)


async def test_a_caller_of_whom_nothing_is_known_has_time_while_nobody_waits(monkeypatch):
    monkeypatch.setattr(reception, "SHORT_TURN_S", 0.01)
    turns = Reception(400, 100)

    class Slow(Call):
        async def read(self):
            await asyncio.sleep(0.1)
            return b"slow"

    assert await received(turns, Slow("a")) == b"slow"
    await proven(turns, "a", "b")
    first, second = begun(turns, Slow("a"), Slow("b"))  # nor are those hurried who have sent before
    new = begun(turns, *(Silent(f"new {number}") for number in range(8)))
    assert await asyncio.gather(first, second) == [b"slow"] * 2
    await ended(*new)


async def test_one_who_turns_silent_leaves_a_turn_to_others_and_is_not_trusted_again(monkeypatch):
    monkeypatch.setattr(reception, "TURN_S", 0.05)
    turns = Reception(400, 100)
    await proven(turns, "false", "neighbour")
    silent = begun(turns, *(Silent("false") for _ in range(10)))
    await settled()
    assert turns._turns["false"] == 3
    async with asyncio.timeout(0.04):
        await received(turns, Call("neighbour", 90))
    with contextlib.suppress(DeadlineTooShortError):
        await silent[0]
    await settled()
    assert turns._turns["false"] == 2
    await ended(*silent)


async def test_callers_who_are_known_by_name_are_one_on_all_their_connections():
    turns = Reception(400, 100)

    async def silent(name, connection):
        caller.name.set(name)
        await received(turns, Silent(connection))

    tasks = [asyncio.create_task(silent("app", f"connection {number}")) for number in range(10)]
    await settled()
    assert turns._turns == {"app": 2}
    await ended(*tasks)


async def test_only_so_many_wait(monkeypatch):
    monkeypatch.setattr(reception, "MOST_WAITING", 10)
    turns = Reception(400, 100)
    await proven(turns, "neighbour")
    silent = begun(turns, *(Silent(f"silent {number}") for number in range(30)))
    await settled()
    assert turns._waiting_count == 10
    with pytest.raises(QueueFullError):
        await received(turns, Call("new"))
    await received(turns, Call("neighbour"))
    await ended(*silent)


async def test_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(reception, "REMEMBERED_COUNT", 3)
    turns = Reception(400, 100)
    await proven(turns, "a", "b", "c", "a", "d")
    assert list(turns._came) == ["c", "a", "d"]
