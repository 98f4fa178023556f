"""Who makes a call: what a task that answers one knows of it."""

from contextvars import ContextVar
from typing import Any

import grpc

name: ContextVar[str] = ContextVar("caller", default="")
"""As the operator calls the caller; empty where nobody is asked."""
method: ContextVar[str] = ContextVar("method", default="")
"""What is called; known where callers are asked."""


def of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Something that tells callers apart: their name, or else their connection."""
    return name.get() or str(context.peer())
