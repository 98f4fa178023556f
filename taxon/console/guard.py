"""Stands before every page: who may ask, how much may be sent, and what browsers must not do with an answer.

Requests that another site makes a browser send are told by `Sec-Fetch-Site`, or else by `Origin`, as Go's
`net/http.CrossOriginProtection` does; names that lead here although nobody allowed them (DNS rebinding) by `Host`.
"""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No inline scripts or styles, nothing from elsewhere."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Where a page has not said otherwise."""
DRAINED = 8
"""So many times what may be sent is read and thrown away, so that a browser gets to see why it was refused."""


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], root_path: str, max_body_bytes: int) -> None:
        """Surrounds `app`.

        Args:
            app: The pages.
            hosts: Names by which it may be reached, beside those of this machine.
            root_path: What proxies put before every path, such as `/taxon`; whether they take it away again or not.
            max_body_bytes: Of one request.
        """
        self.app = app
        self._hosts = {*LOOPBACK, *(host.lower() for host in hosts)}
        self._root_path = root_path.rstrip("/")
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given.setdefault(name, value)
            await send(message)

        if refusal := self._refusal(scope["method"], headers):
            await PlainTextResponse(refusal, 403)(scope, receive, guarded)
            return
        await self.app(self._rooted(scope), self._bounded(receive), guarded)

    def _refusal(self, method: str, headers: Headers) -> str:
        host = headers.get("host", "")
        if _hostname(host) not in self._hosts:
            return f"This console is not to be reached as {host!r}: start it with --host to allow that name.\n"
        if method in SAFE_METHODS:
            return ""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
        own = site in ("same-origin", "none") if site else origin.partition("://")[2] == host
        return "" if own else "This request comes from another site, or does not say where from: refused.\n"

    def _rooted(self, scope: Scope) -> Scope:
        root, path = self._root_path, scope["path"]
        inside = path == root or path.startswith(f"{root}/")
        return {**scope, "root_path": root, "path": path if root and inside else root + path}

    def _bounded(self, receive: Receive) -> Receive:
        most, count = self._max_body_bytes, 0

        async def bounded() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count <= most:
                return message
            while message.get("more_body") and count <= DRAINED * most:
                message = await receive()
                count += len(message.get("body", b""))
            raise HTTPException(413, f"More than {most:,} bytes may not be sent: take a smaller picture.")

        return bounded


def _hostname(host: str) -> str:
    """Without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
