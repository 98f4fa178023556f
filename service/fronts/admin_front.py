"""The port of operators: `taxon.v1.ModelAdminService`, in the process that owns the workers, apart from callers."""

from collections.abc import Awaitable, Callable

import grpc

from taxon.service.access.door import Door
from taxon.service.access.entry import Entry
from taxon.service.api import reflection
from taxon.service.api.admin import SERVICE, Control, ModelAdminService
from taxon.service.api.guard import Guard, UnknownMethods
from taxon.service.config import Settings
from taxon.service.fronts.front import door
from taxon.service.models.declaring import Declaring
from taxon.service.models.repository import Repository
from taxon.service.scheduling.board import Board
from taxon.service.telemetry.access_log import AccessLog
from taxon.service.telemetry.calls import Calls
from taxon.service.telemetry.metrics import Metrics
from taxon.v1.model_admin_service_pb2_grpc import add_ModelAdminServiceServicer_to_server

MAX_MESSAGE_BYTES = 64 * 1024
"""What operators send is small; answers are not bounded by it."""
MAX_CONNECTIONS = 100


class AdminFront:
    """One server for operators. Must be built on the event loop."""

    def __init__(self, service: ModelAdminService, calls: Calls, own_door: Door, *, reflects: bool) -> None:
        """Listens to nothing yet.

        Args:
            service: What answers.
            calls: Told of every call.
            own_door: Whom it is open to.
            reflects: Whether to serve reflection.
        """
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
            ("grpc.so_reuseport", 0),
        ]
        self._door = own_door
        self._server = grpc.aio.server(interceptors=own_door.interceptors, options=options)
        add_ModelAdminServiceServicer_to_server(service, Guard(self._server, calls))
        if reflects:
            reflection.register(Guard(self._server, calls), [SERVICE])
        self._server.add_generic_rpc_handlers((UnknownMethods(calls),))

    def let_in(self, entry: Entry) -> None:
        """Asks this of those who come from now on. Must have been called before `start`."""
        self._door.let_in(entry)

    async def start(self, address: str) -> int:
        """Listens. Returns the port.

        Args:
            address: HOST:PORT; port 0 takes a free one.

        Raises:
            StartError: The address cannot be bound.
        """
        port = self._door.bind(self._server, address, "--admin-port")
        await self._server.start()
        return port

    async def close(self) -> None:
        """Ends at once; what has been ordered is done to its end by others, or given up with the server."""
        await self._server.stop(None)


def admin_front(
    settings: Settings,
    repository: Repository,
    control: Control,
    metrics: Metrics,
    heard: Callable[[], Awaitable[None]],
) -> AdminFront:
    """The admin port of a server, in the process that owns its models."""
    calls = Calls(AccessLog(settings.access_log_sample), metrics.count_request)
    service = ModelAdminService(repository, control, Declaring(settings.models, repository, heard))
    # A board of its own: what operators do counts for nothing at the port of callers.
    own_door = door(settings, metrics, calls, Board(1), 0)
    return AdminFront(service, calls, own_door, reflects=settings.reflection)
