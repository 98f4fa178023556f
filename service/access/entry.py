"""What decides who is let in, as its files say at present: read at the start, looked at for ever, told to every process
that speaks gRPC. Only one process reads them, so that all are of one mind, also those that start later.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from taxon.service.access import callers
from taxon.service.access.callers import Callers
from taxon.service.access.certificates import Certificate, read_certificate
from taxon.service.access.expiry import expires
from taxon.service.errors import StartError
from taxon.service.scheduling.board import PLACES

LOOK_S = 1.0
"""How long a change may go unseen. Files are read as a whole: events are not to be had on network file systems, and the
time of a file says nothing where it is a link into a folder that is replaced, as in Kubernetes.
"""
Part = TypeVar("Part")

log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """What is asked of those who come."""

    certificate: Certificate | None = None
    """None: the connection is not encrypted."""
    callers: Callers | None = None
    """None: everybody is let in."""
    places: Mapping[str, int] = {}
    """Where each caller is counted, by name."""


class EntryFiles:
    """The files, and what they said when they last were in order."""

    def __init__(
        self, tls_cert: Path | None, tls_key: Path | None, tls_client_ca: Path | None, keys: Path | None
    ) -> None:
        """Reads them.

        Raises:
            StartError: One of them cannot be used. The message names it.
        """
        self._tls_cert = tls_cert
        self._tls_key = tls_key
        self._tls_client_ca = tls_client_ca
        self._keys = keys
        self._refused: dict[Callable[[], Any], str] = {}
        """Why what a reader read last is not used."""
        self.entry = Entry()
        """As of the last look."""
        self._free = deque(range(PLACES))
        self.entry = self._placed(Entry(self._certificate(), self._callers()))
        _look_at_the_end(self.entry)

    async def watch(self, tell: Callable[[Entry], None]) -> None:
        """Looks for ever. What has changed and cannot be used is logged once, and what was there before stays: a bad
        certificate does not keep a key from being revoked. Returns where there are no files.
        """
        if self._tls_cert is None and self._keys is None:
            return
        is_told = True
        while True:
            await asyncio.sleep(LOOK_S)
            certificate = await self._again(self._certificate, self.entry.certificate)
            known = await self._again(self._callers, self.entry.callers)
            if (certificate, known) != self.entry[:2]:
                if certificate != self.entry.certificate:
                    _look_at_the_end(Entry(certificate))
                self.entry, is_told = self._placed(Entry(certificate, known)), False
                log.info("what lets callers in has changed")
            if not is_told:
                try:
                    tell(self.entry)
                except OSError as error:  # no descriptor is left: there may be one at the next look
                    log.error("what lets callers in cannot be used now", reason=error.strerror)
                else:
                    is_told = True

    async def _again(self, read: Callable[[], Part], last: Part) -> Part:
        try:
            part = await asyncio.to_thread(read)
        except StartError as error:
            if self._refused.get(read) != str(error):
                log.error("what lets callers in has changed and is not used", reason=str(error))
            self._refused[read] = str(error)
            return last
        self._refused.pop(read, None)
        return part

    def _placed(self, entry: Entry) -> Entry:
        """Callers that stay keep their place. One that has become free is the last to be given again: calls of its last
        caller may be under way.
        """
        names = [caller.name for caller in entry.callers.callers] if entry.callers else []
        before = self.entry.places
        places = {name: before[name] for name in names if name in before}
        self._free.extend(place for name, place in before.items() if name not in places)
        places |= {name: self._free.popleft() for name in names if name not in places}
        return entry._replace(places=places)

    def _certificate(self) -> Certificate | None:
        if self._tls_cert is None or self._tls_key is None:
            return None
        return read_certificate(self._tls_cert, self._tls_key, self._tls_client_ca)

    def _callers(self) -> Callers | None:
        return None if self._keys is None else callers.read(self._keys)


def _look_at_the_end(entry: Entry) -> None:
    if entry.certificate and (ended := expires(entry.certificate.chain)) < datetime.now(UTC):
        log.warning("the certificate has expired: clients will not connect", expired=ended.isoformat())
