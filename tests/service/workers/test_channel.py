"""Both ends in this process; a plain socket plays the other process."""

import asyncio
import socket

import pytest

from taxon.service.workers.channel import READ_BYTES, Channel, socket_pair
from taxon.service.workers.worker_protocol import pack, unpacked


class End:
    """A channel, and the socket at its other end."""

    def __init__(self):
        ours, self.theirs = socket_pair()
        self.messages = []
        self.ends = 0
        self.changed = asyncio.Event()
        self.channel = Channel(ours, self._receive, self._end)

    def _receive(self, message):
        self.messages.append(message)
        self.changed.set()

    def _end(self):
        self.ends += 1
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def read(self, count):
        """The messages that have come to the other end."""
        buffer, messages = bytearray(), []
        while len(messages) < count:
            buffer += await asyncio.to_thread(self.theirs.recv, READ_BYTES)
            messages += unpacked(buffer)
        assert not buffer
        return messages


@pytest.fixture
async def end():
    made = End()
    yield made
    made.channel.close()
    made.theirs.close()


async def test_messages_are_received_in_order_however_they_come(end):
    stream = b"".join(pack(number) for number in range(10))
    await asyncio.to_thread(end.theirs.sendall, stream[:7])
    await asyncio.to_thread(end.theirs.sendall, stream[7:])
    await end.until(lambda: len(end.messages) == 10)
    assert end.messages == list(range(10))


async def test_a_message_larger_than_a_read_comes_whole(end):
    message = bytes(range(256)) * (5 * READ_BYTES // 256)
    sending = asyncio.to_thread(end.theirs.sendall, pack(message))
    await asyncio.gather(sending, end.until(lambda: end.messages))
    assert end.messages == [message]


async def test_messages_are_sent_in_order(end):
    for number in range(5):
        end.channel.send(number)
    end.channel.send_soon(5)
    end.channel.send_soon(6)
    assert await end.read(7) == list(range(7))


async def test_what_is_sent_in_one_turn_goes_together(end):
    """One wake-up of the other process instead of many."""
    end.theirs.setblocking(False)
    for number in range(3):
        end.channel.send_soon(number)
    with pytest.raises(BlockingIOError):
        end.theirs.recv(READ_BYTES)
    await asyncio.sleep(0)
    assert list(unpacked(bytearray(end.theirs.recv(READ_BYTES)))) == [0, 1, 2]


async def test_a_full_socket_blocks_nobody_and_loses_nothing(end):
    count = 300
    for number in range(count):
        end.channel.send((number, bytes(100_000)))  # 30 MB; the buffers hold less
    end.channel.send_soon((count, b""))
    received = await end.read(count + 1)
    assert [number for number, _ in received] == list(range(count + 1))
    assert end.channel._unsent == []


async def test_the_end_of_the_other_side_is_told_once(end):
    end.theirs.sendall(pack("last words"))
    end.theirs.close()
    await end.until(lambda: end.ends)
    end.channel.send("nobody reads this")  # no error
    await asyncio.sleep(0)
    assert (end.messages, end.ends) == (["last words"], 1)


async def test_a_side_that_dies_while_it_is_sent_to_is_told_as_ended(end):
    for _ in range(300):
        end.channel.send(bytes(100_000))
    end.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    end.theirs.close()
    await end.until(lambda: end.ends)
    assert end.ends == 1
    end.channel.send("more")
    assert end.channel._unsent == []


async def test_a_closed_channel_says_and_hears_nothing(end):
    end.channel.send_soon("too late")
    end.channel.close()
    end.channel.close()  # twice is no error
    end.channel.send("nothing")
    end.channel.send_soon("nothing")
    await asyncio.sleep(0)
    assert await asyncio.to_thread(end.theirs.recv, READ_BYTES) == b""
    assert (end.messages, end.ends) == ([], 0)


async def test_the_other_side_can_be_closed_from_within_a_message(end):
    end.channel._on_message = lambda message: (end._receive(message), end.channel.close())
    end.theirs.sendall(pack("first"))
    await end.until(lambda: end.messages)
    assert end.channel.closed
    assert end.ends == 0
