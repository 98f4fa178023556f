"""What the log looks like: one event per line, JSON for machines or columns for people; also of what libraries say and
of what ends the process. What libraries write past Python is `standard_error`'s.
"""

import logging
import sys
from types import TracebackType
from typing import Literal, TextIO

import structlog
from structlog.dev import plain_traceback
from structlog.typing import Processor


def configure(
    form: Literal["json", "console"], level: Literal["debug", "info", "warning", "error"], file: TextIO | None = None
) -> None:
    """Sets up structlog and Python's logging for this process.

    Args:
        form: JSON, or columns for people.
        level: The least severe that is written.
        file: Where to; None: standard error.
    """
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        # Tracebacks without the values of variables, which hold pictures, keys and names.
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
    )
    structlog.configure(
        processors=[*common, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=file or sys.stderr),
        # Else every line makes a logger first, also one that is not written.
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    structlog.get_logger(__name__).critical("the process ends unforeseen", exc_info=(kind, error, trace))
