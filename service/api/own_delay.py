"""How long a call waits before this front takes it up: the front calls itself and looks at the clock.

Nothing inside tells of that wait. What a front has not taken up lies in gRPC's core, oldest first, and grows without
bound where calls cost the front more than the model, until callers give up. A front that is half idle, and in time, is
not asked.
"""

import asyncio
import contextlib
import math
import random
import secrets
import time

import grpc

METHOD = "/taxon.internal.OwnDelay/Measure"
PERIOD_S = 0.05
# While the front is busy it is asked again after so long.
BUSY_PERIOD_S = 0.02
BUSY_SHARE = 0.5
LONGEST_S = 1.0
# A delay that has stood at this for so long is no burst, nor a neighbour's: calls come faster than they are taken up.
STANDING_DELAY_S, STANDING_S = 0.1, 0.5
# From then on so many calls are refused that it is near the target, until none has had to be for a while.
TARGET_S, RELAPSE_S = 0.05, 2.0
# How much the share of refused calls changes for a second above the target, and for a second more than before.
INTEGRAL, TREND = 0.6, 1.0
# In Python a refusal costs the front as much as a small answer: refusing more would only answer fewer.
MOST_SHARE = 0.6


class OwnDelay(grpc.GenericRpcHandler):
    """The delay of one front, measured while `measure` runs. Lives on the event loop."""

    def __init__(self, server: grpc.aio.Server) -> None:
        """Adds an address of the front's own to a server that has not started."""
        self._last_s = 0.0
        self._asked_at = self._taken_up_at = math.inf
        self._share = 0.0
        """Of calls that are refused."""
        self._stands = False
        self._short_at = time.monotonic()
        """When the delay was last too short to stand."""
        self._needed_at = -math.inf
        # Abstract: no file, and no port that siblings could share.
        self._address = f"unix-abstract:taxon-{secrets.token_hex(8)}"
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_answer)
        server.add_generic_rpc_handlers((self,))
        server.add_insecure_port(self._address)

    @property
    def seconds(self) -> float:
        """The delay now. A call that is still on its way has taken so long already."""
        return max(self._last_s, time.monotonic() - self._asked_at)

    @property
    def must_refuse(self) -> bool:
        """Whether to refuse one more call because of the delay: with a probability that keeps it near the target."""
        if not self._stands:
            return False
        return random.random() < self._share  # noqa: S311 - no secret

    def learn(self, delay_s: float, now: float) -> None:
        """Takes a measurement: the controller of PIE (RFC 8033, section 4.2), whose share of refused calls follows the
        delay and its trend.

        Args:
            delay_s: Measured.
            now: Point of `time.monotonic()`.
        """
        if delay_s < STANDING_DELAY_S:
            self._short_at = now
        if now - self._short_at > STANDING_S:
            self._stands, self._needed_at = True, now
        if self._stands:
            change = INTEGRAL * (delay_s - TARGET_S) + TREND * (delay_s - self._last_s)
            self._share = min(MOST_SHARE, max(0.0, self._share + change))
            if self._share > 0.0:
                self._needed_at = now
            self._stands = now - self._needed_at < RELAPSE_S
        self._last_s = delay_s

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """The handler of the front's call to itself; None for others."""
        if handler_call_details.method != METHOD:
            return None
        self._taken_up_at = time.monotonic()
        return self._handler

    async def measure(self) -> None:
        """Measures until cancelled."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            while True:
                spent_s, began = time.thread_time(), time.monotonic()
                period_s = BUSY_PERIOD_S if self._last_s else PERIOD_S
                await asyncio.sleep(period_s)
                elapsed_s = time.monotonic() - began
                is_late = elapsed_s > 2 * period_s
                if not is_late and time.thread_time() - spent_s < BUSY_SHARE * elapsed_s:
                    self.learn(0.0, time.monotonic())
                    continue
                self._asked_at = time.monotonic()
                with contextlib.suppress(grpc.aio.AioRpcError):  # it took as long as that
                    await ask(b"", timeout=LONGEST_S)
                now = time.monotonic()
                delay_s = min(now, self._taken_up_at) - self._asked_at
                self._asked_at = self._taken_up_at = math.inf
                self.learn(delay_s, now)


async def _answer(_: bytes, __: object) -> bytes:
    return b""
