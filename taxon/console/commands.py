"""The command `taxon console`: arguments, and the process that answers browsers."""

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from taxon import connection, ranges
from taxon.console.guard import LOOPBACK
from taxon.console.pages import Console, application
from taxon.feedback.errors import StoreError
from taxon.feedback.opening import place_of
from taxon.feedback.sealing import Seal, SealError
from taxon.feedback.store import Store
from taxon.requests import MAX_MESSAGE_BYTES

STOP_S = 5
"""What open answers get to be finished."""


def main(argv: list[str]) -> int:
    """Runs until it is told to stop. Returns 0, or 2 if it cannot be started as called."""
    options = _parser().parse_args(argv)
    try:
        console = _console(options)
        listening = _listen(options.listen, public=bool(options.host))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"taxon console: {where}{error.strerror}\n")
        return 2
    except (SealError, StoreError, ValueError) as error:
        sys.stderr.write(f"taxon console: {error}\n")
        return 2
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"taxon console: http://{shown}:{port}{console.root_path}/ shows {console.connection.target}\n")
    sys.stderr.flush()
    config = uvicorn.Config(
        application(console),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        return 0
    return 0


def _console(options: argparse.Namespace) -> Console:
    if options.feedback_pictures and not options.feedback:
        raise ValueError("--feedback-pictures goes with --feedback")
    feedback = place_of(options.feedback, options.feedback_pictures) if options.feedback else None
    for folder in (options.runs, options.models, feedback):
        if isinstance(folder, Path) and not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
    seal = Seal(options.feedback_key) if options.feedback_key else None
    if feedback:
        Store(feedback, seal=seal).close()  # what is wrong with it is said now
    return Console(
        connection.from_options(options),
        options.runs,
        options.models,
        feedback,
        seal,
        options.rounds,
        options.root_path,
        tuple(options.host),
        options.max_picture_bytes,
    )


def _listen(address: str, *, public: bool) -> socket.socket:
    """Opens the port.

    Raises:
        ValueError: Not HOST:PORT, or others could reach it and nobody said by what name.
        OSError: It cannot be opened.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--listen {address!r} is not HOST:PORT")
    if host not in LOOPBACK and not public:
        raise ValueError(
            f"--listen {address} can be reached by others, who then ask with this console's key: put a proxy before "
            "it that lets the right people in, and say --host NAME, as browsers write it"
        )
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return socket.create_server((bare, int(port)), family=family)
    except OSError as error:
        raise OSError(error.errno, f"--listen {address} cannot be opened: {error.strerror}") from error


def _root_path(text: str) -> str:
    """As given, without a slash at its end."""
    if text and (not text.startswith("/") or "//" in text):
        raise argparse.ArgumentTypeError(f"{text!r} must begin with one slash, such as /taxon")
    return text.rstrip("/")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Pages in the browser: ask a server about pictures, say what is right, look at models and runs."
    )
    connection.add_options(parser)
    pages = parser.add_argument_group("pages")
    pages.add_argument(
        "--runs", type=Path, metavar="FOLDER", help="also show what `taxon train` or `taxon round` trained in it"
    )
    pages.add_argument("--models", type=Path, metavar="FOLDER", help="also show what was published and promoted in it")
    pages.add_argument(
        "--rounds", type=Path, metavar="FOLDER", help="also show where the loop stands: that of `taxon round --rounds`"
    )
    pages.add_argument("--feedback", metavar="PLACE", help="also show that of `taxon serve --feedback`")
    pages.add_argument("--feedback-pictures", metavar="URL", help="that of `taxon serve --feedback-pictures`")
    pages.add_argument("--feedback-key", type=Path, metavar="FILE", help="that of `taxon serve --feedback-key`")
    reach = parser.add_argument_group("how it is reached")
    reach.add_argument(
        "--listen", default="127.0.0.1:8600", metavar="HOST:PORT", help="(default: 127.0.0.1:8600; port 0: a free one)"
    )
    reach.add_argument(
        "--root-path", type=_root_path, default="", metavar="/PATH", help="what a proxy puts before every path"
    )
    reach.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="by which browsers may reach it, beside localhost"
    )
    reach.add_argument(
        "--max-picture-bytes",
        type=ranges.whole(1, MAX_MESSAGE_BYTES),
        default=8 * 2**20,
        help="of a picture that is sent (default: 8388608); the server has a limit of its own",
    )
    return parser
