"""A PostgreSQL server for tests, if its programs are here; it keeps what it commits, as the real one does."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = ("", *(str(place) for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)))
schemas = itertools.count(1)


def program(name):
    found = [path for place in PLACES if (path := shutil.which(name, path=place or None))]
    if not found:
        pytest.skip(f"{name} of PostgreSQL is not installed")
    return found[0]


def account():
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    try:
        return {"user": pwd.getpwnam("postgres").pw_uid, "group": pwd.getpwnam("postgres").pw_gid, "extra_groups": []}
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no account postgres")


class Postgres:
    """Knows how to start, how to die, and where it listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._account = account()
        if self._account:
            os.chown(folder, self._account["user"], self._account["group"])
        self._run(program("initdb"), "-D", folder / "data", "-U", "taxon", "-A", "trust", "-E", "UTF8", "--locale=C")

    def start(self, *options: str) -> None:
        words = " ".join(("-c listen_addresses=''", f"-k {self.folder}", *options))
        self._run(
            program("pg_ctl"), "-D", self.folder / "data", "-o", words, "-l", self.folder / "log", "-w", "-s", "start"
        )

    def stop(self, mode: str = "fast") -> None:
        self._run(program("pg_ctl"), "-D", self.folder / "data", "-m", mode, "-w", "-s", "stop")

    def _run(self, *words) -> None:
        subprocess.run([*map(str, words)], check=True, cwd="/", stdout=subprocess.DEVNULL, **self._account)

    def url(self, schema: str = "public") -> str:
        return f"postgresql:///postgres?host={self.folder}&user=taxon&options=-csearch_path%3D{schema}"

    def new(self) -> str:
        """The URL of a store that nobody has used."""
        import psycopg

        name = f"store_{next(schemas)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return self.url(name)


@contextmanager
def running() -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: it holds a socket; and another account must get in
    server = None
    try:
        server = Postgres(folder)
        server.start()
        yield server
    finally:
        if server is not None and (folder / "data" / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(folder)
