"""The command `taxon keys`: who may call a service that asks for keys."""

import argparse
import json
import os
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from taxon import ranges
from taxon.mistaken import in_words
from taxon.service.access import callers
from taxon.service.access.callers import GROUPS, MOST_A_SECOND, MOST_CALLS, Caller
from taxon.service.errors import StartError

MOST_DAYS = 36500


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0, or 2 if it cannot be done as called."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except ValidationError as error:
        sys.stderr.write(f"taxon keys: {error.errors()[0]['msg']}: {error.errors()[0]['input']!r}\n")
        return 2
    except (OSError, StartError, ValueError) as error:
        sys.stderr.write(f"taxon keys: {in_words(error)}\n")
        return 2
    return 0


def _add(options: argparse.Namespace) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    key, key_id, key_sha256 = (None, None, None) if options.identity else callers.new_key()
    caller = Caller(
        name=options.name,
        groups=options.groups,
        key_id=key_id,
        key_sha256=key_sha256,
        identity=options.identity,
        created=now,
        expires=now + timedelta(days=options.expires_in_days) if options.expires_in_days else None,
        max_concurrent_calls=options.max_concurrent_calls,
        max_calls_per_second=options.max_calls_per_second,
    )
    callers.add(options.keys, caller)
    if key:
        sys.stdout.write(f"{key}\n")
        sys.stderr.write("taxon keys: this is the only time that the key is shown; the file holds its hash\n")
        if _others_may_read(sys.stdout):
            sys.stderr.write("taxon keys: others on this machine may read the file that it went into: chmod 600 FILE\n")


def _others_may_read(stream: TextIO) -> bool:
    """Whether what is written goes into a file that not only its owner may read."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except OSError:  # nothing that the system knows is behind it
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def _revoke(options: argparse.Namespace) -> None:
    callers.revoke(options.keys, options.name)


def _list(options: argparse.Namespace) -> None:
    for caller in callers.read(options.keys).callers:
        told = caller.model_dump(mode="json", exclude_none=True, exclude={"key_sha256"})
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Say who may call a service that is started with --keys FILE. It sees changes within two seconds."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument("--keys", type=Path, required=True, metavar="FILE", help="the file of callers")

    add = commands.add_parser("add", parents=[file], help="let a caller in, and print its key")
    add.set_defaults(run=_add)
    add.add_argument("name", help="who it is, for `list`, logs and metrics")
    add.add_argument(
        "--groups", type=_groups, required=True, help=f"what the caller may call, joined by commas: {', '.join(GROUPS)}"
    )
    add.add_argument(
        "--identity",
        help="instead of a key, what the client's certificate says: dns:NAME, uri:URI or subject:CN=NAME,O=…",
    )
    add.add_argument("--expires-in-days", type=ranges.number(0.0, MOST_DAYS, above=True), metavar="DAYS")
    add.add_argument(
        "--max-concurrent-calls", type=ranges.whole(1, MOST_CALLS), metavar="N", help="calls under way at once"
    )
    add.add_argument(
        "--max-calls-per-second",
        type=ranges.number(0.0, MOST_A_SECOND, above=True),
        metavar="N",
        help="on average; those of one second may come at once",
    )

    revoke = commands.add_parser("revoke", parents=[file], help="let a caller in no more")
    revoke.set_defaults(run=_revoke)
    revoke.add_argument("name", help="as it was added")

    listing = commands.add_parser("list", parents=[file], help="print every caller as a line of JSON, without its key")
    listing.set_defaults(run=_list)
    return parser


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(text.split(",")))
    if wrong := [group for group in groups if group not in GROUPS]:
        raise argparse.ArgumentTypeError(f"there is no group {wrong[0]!r}: {', '.join(GROUPS)}")
    return groups
