"""The page that Prometheus scrapes."""

import io
import ssl
import time
from collections.abc import Callable
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

NO_DESCRIPTOR_PAUSE_S = 0.2
SILENT_S = 10.0


class PageServer(ThreadingWSGIServer):
    """Waits while no descriptor is left; the usual one would try again without a pause."""

    tls: ssl.SSLContext | None = None
    """For those who connect from now on."""

    def get_request(self) -> tuple[Any, Any]:
        """Accepts a connection. Hands are shaken on the thread of the request: others need not wait for it."""
        try:
            connection, address = super().get_request()
        except OSError:
            time.sleep(NO_DESCRIPTOR_PAUSE_S)
            raise
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that cannot speak TLS or do not go on."""


class Answer(io.BufferedIOBase):
    """To a client. One who has left, or reads no more, has broken the connection off, of which wsgiref says nothing; of
    TLS' own words for that it would write a traceback.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def write(self, data: Any) -> int:
        """Sends all of it."""
        try:
            self._connection.sendall(data)
        except (ssl.SSLError, TimeoutError) as gone:
            raise ConnectionAbortedError(str(gone)) from gone
        return memoryview(data).nbytes


class SilentHandler(WSGIRequestHandler):
    """Writes no line for every scrape, and waits for no client for ever."""

    timeout = SILENT_S

    def setup(self) -> None:
        """Opens the connection's two directions."""
        super().setup()
        self.wfile = Answer(self.connection)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class MetricsPage:
    """The HTTP page that Prometheus scrapes, on a thread of its own."""

    def __init__(
        self,
        registry: CollectorRegistry,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        may_read: Callable[[str], bool] | None = None,
    ) -> None:
        """Answers.

        Args:
            registry: What it shows.
            host: Address to listen on; empty is every IPv4 address.
            port: 0 takes a free one.
            tls: See `let_in`.
            may_read: See `let_in`.

        Raises:
            OSError: The address cannot be bound.
        """
        self._show: Any = make_wsgi_app(registry)
        self._server = make_server(host, port, self._answer, PageServer, SilentHandler)
        self.let_in(tls, may_read)
        self._thread = Thread(target=self._server.serve_forever, name="metrics page", daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port

    def let_in(self, tls: ssl.SSLContext | None, may_read: Callable[[str], bool] | None) -> None:
        """Speaks TLS with those who connect from now on, and answers only some.

        Args:
            tls: None: nothing is encrypted.
            may_read: Told what a request says as its `Authorization`; None: everybody may.
        """
        self._server.tls, self._may_read = tls, may_read

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self._may_read and not self._may_read(environ.get("HTTP_AUTHORIZATION", "")):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
            return []
        return self._show(environ, start_response)

    def close(self) -> None:
        """Stops answering and joins the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
