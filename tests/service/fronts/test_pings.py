"""Pings of idle connections, as strict balancers send them: how many a minute is the operator's to say."""

import asyncio

import pytest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
PINGS = 20


def frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


async def farewell(address: str) -> bytes:
    """What the server says when it has had enough of the pings on a connection without calls; nothing if all of two
    rounds are answered.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS))
    for _ in range(2):  # the first may be answered before it is counted
        writer.write(frame(PING, bytes(8)) * PINGS)
        answered = 0
        while answered < PINGS:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            answered += head[3] == PING and head[4] == 1
            if head[3] == GOAWAY:
                writer.close()
                return payload
    writer.close()
    return b""


@pytest.mark.parametrize(("setting", "allowed"), [((), False), (("--min-ping-seconds", "0"), True)])
async def test_pings_are_answered_at_the_pace_that_is_allowed(serve, models, setting, allowed):
    async with serve(models, *setting) as running:
        assert (b"too_many_pings" in await farewell(running.address)) != allowed
