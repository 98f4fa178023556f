"""The index of a store that several machines share: tables in PostgreSQL. Needs the package `psycopg` (extra
`postgres`).

A writer's turn is an exclusive lock on one small table until the commit, which returns once the server's disk holds it.
A lost connection is made anew the next time; what was under way in it is told as failed, and the server undoes it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from taxon import extras
from taxon.feedback.errors import StoreError, StoreFullError
from taxon.feedback.index import BUSY_S, Row

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql", "postgres")
CONNECTION = {
    "connect_timeout": 10,
    "application_name": "taxon feedback",
    "keepalives_idle": 30,
    "tcp_user_timeout": int(BUSY_S * 1000),
}
"""Unless the URL says otherwise: whoever waits for a server that has gone is told so."""
MAKING = 0x7461786F6E
"""The advisory lock of whoever makes the tables."""
TABLES = ("said", "answers", "pictures", "tallies", "exports", "decisions", "suspicions")
SCHEMAS = (
    """
CREATE TABLE pictures (
    id TEXT PRIMARY KEY, extension TEXT NOT NULL, byte_count BIGINT NOT NULL, kept_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX pictures_by_age ON pictures (kept_at);
CREATE TABLE answers (
    request_id TEXT PRIMARY KEY, picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE, why TEXT NOT NULL,
    model TEXT NOT NULL, version BIGINT NOT NULL, variant TEXT NOT NULL, labels TEXT NOT NULL, score DOUBLE PRECISION,
    unknown BOOLEAN NOT NULL, familiarity DOUBLE PRECISION, answered_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX answers_by_picture ON answers (picture);
CREATE TABLE said (
    contributor TEXT NOT NULL, picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE,
    request_id TEXT NOT NULL REFERENCES answers ON DELETE CASCADE, labels TEXT NOT NULL, proposed TEXT NOT NULL,
    consent TEXT NOT NULL, license TEXT NOT NULL, note TEXT NOT NULL, said_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (contributor, picture)
);
CREATE INDEX said_by_picture ON said (picture);
CREATE INDEX said_by_answer ON said (request_id);
CREATE TABLE tallies (
    contributor TEXT NOT NULL, hour BIGINT NOT NULL, count BIGINT NOT NULL, PRIMARY KEY (contributor, hour)
);
CREATE TABLE exports (folder TEXT PRIMARY KEY, exported_at DOUBLE PRECISION NOT NULL);
CREATE TABLE total (byte_count BIGINT NOT NULL);
INSERT INTO total VALUES (0);
CREATE FUNCTION count_pictures() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE total SET byte_count = byte_count
        + CASE WHEN TG_OP = 'INSERT' THEN NEW.byte_count ELSE -OLD.byte_count END;
    RETURN NULL;
END $$;
CREATE TRIGGER picture_comes AFTER INSERT ON pictures FOR EACH ROW EXECUTE FUNCTION count_pictures();
CREATE TRIGGER picture_goes AFTER DELETE ON pictures FOR EACH ROW EXECUTE FUNCTION count_pictures();
""",
    """
CREATE TABLE decisions (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    picture TEXT NOT NULL REFERENCES pictures ON DELETE CASCADE, verdict TEXT NOT NULL, labels TEXT NOT NULL,
    reviewer TEXT NOT NULL, why TEXT NOT NULL, decided_at DOUBLE PRECISION NOT NULL,
    undone_by TEXT NOT NULL DEFAULT '', undone_at DOUBLE PRECISION
);
CREATE INDEX decisions_by_picture ON decisions (picture);
CREATE TABLE suspicions (
    picture TEXT PRIMARY KEY REFERENCES pictures ON DELETE CASCADE, label TEXT NOT NULL,
    suspicion DOUBLE PRECISION NOT NULL, likely TEXT NOT NULL, judged_at DOUBLE PRECISION NOT NULL
);
""",
    "CREATE TABLE store (id TEXT NOT NULL)",
)
"""Each makes of the tables of one version those of the next, the first of none."""


class PostgresIndex:
    """See `index.Index`."""

    def __init__(self, url: str) -> None:
        """Connects, and makes the tables if there are none, in the first schema of the search path.

        Args:
            url: As PostgreSQL's own programs take it: postgresql://USER@HOST/DATABASE?…

        Raises:
            StoreError: `psycopg` is not installed, the server cannot be reached or does not keep what it commits, the
                tables cannot be made or were made by a newer Taxon.
        """
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict, make_conninfo
        except ImportError as error:
            raise StoreError(f"{error}; install it with: {extras.install('postgres')}") from error
        self._psycopg = psycopg
        try:
            given = {**CONNECTION, **conninfo_to_dict(url)}
        except psycopg.ProgrammingError as error:
            raise StoreError("the URL is none that PostgreSQL takes: postgresql://HOST/DATABASE") from error
        # What may be said aloud: the URL itself may hold a password.
        self._where = f"PostgreSQL at {given.get('host', 'its socket')}"
        self._url = make_conninfo(**given)
        self._connection = self._connected()
        try:
            with self._told():
                version = self._open()
            if version > len(SCHEMAS):
                raise StoreError(f"{self._where}: tables of a newer Taxon (version {version}, known is {len(SCHEMAS)})")
        except BaseException:
            self._connection.close()
            raise

    def _connected(self) -> "psycopg.Connection[Row]":
        with self._told():
            # Nothing is prepared, and nothing set for a session: connection pools give each transaction another one.
            connection = self._psycopg.connect(self._url, autocommit=True, prepare_threshold=None)
        settings = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
        with self._told():
            fsync, commit = connection.execute(settings).fetchone() or ("off", "off")
        if fsync == "off":
            connection.close()
            raise StoreError(f"{self._where} runs with fsync=off: it would lose what it has said it keeps")
        busy_ms, lasting = int(BUSY_S * 1000), "SET LOCAL synchronous_commit = on;" if commit == "off" else ""
        self._begin = (
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {lasting} SET LOCAL lock_timeout = {busy_ms};"
            f"SET LOCAL idle_in_transaction_session_timeout = {2 * busy_ms};"  # else who is frozen keeps its turn
        )
        return connection

    def _open(self) -> int:
        with self._turn(f"SELECT pg_advisory_xact_lock({MAKING})"):
            if self.first("SELECT to_regclass('about')") == (None,):
                self.execute("CREATE TABLE about (version BIGINT NOT NULL, key_digest TEXT)")
                self.execute("INSERT INTO about VALUES (0, NULL)")
            (version,) = self.first("SELECT version FROM about") or (0,)
            for number, schema in enumerate(SCHEMAS[version:], version + 1):
                self.execute(schema)
                self.execute("UPDATE about SET version = ?", (number,))
        return int(version)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """See `index.Index`."""
        with self._told():
            cursor = self._sent(statement, parameters)
            return iter(cursor.fetchall() if cursor.description else ())

    def first(self, query: str, parameters: Sequence[Any] = ()) -> Row | None:
        """See `index.Index`."""
        return next(self.execute(query, parameters), None)

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """See `index.Index`."""
        with self._told(), self._connection.cursor() as cursor:
            cursor.executemany(_marked(statement), parameters)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `index.Index`."""
        with self._turn("LOCK TABLE total IN EXCLUSIVE MODE"):
            yield

    def check_key(self, digest: str) -> None:
        """See `index.Index`."""
        (known,) = self.first("SELECT key_digest FROM about") or (None,)
        if known not in (None, digest):
            raise StoreError(
                f"the pictures given are not those of {self._where}: their contributors.key is another; give the place "
                "of pictures that this store was made with"
            )
        self.execute("UPDATE about SET key_digest = ?", (digest,))

    def tidy(self) -> None:
        """Nothing: PostgreSQL does so by itself."""

    def overwrite_deleted(self) -> None:
        """Writes the tables anew, without what was deleted; its log and backups are PostgreSQL's."""
        with self._told():
            self._connection.execute(f"VACUUM (FULL) {', '.join(TABLES)}".encode())

    def close(self) -> None:
        """See `index.Index`."""
        self._connection.close()

    def _sent(self, query: str, parameters: Sequence[Any] = ()) -> "psycopg.Cursor[Row]":
        """What only reads, or begins, may be tried again."""
        status = self._psycopg.pq.TransactionStatus
        alone = self._connection.closed or self._connection.info.transaction_status is status.IDLE
        try:
            if self._connection.closed:
                self._connection = self._connected()
            return self._connection.execute(_marked(query), parameters or None)
        except self._psycopg.OperationalError:
            if not alone or not self._connection.closed:
                raise
            self._connection = self._connected()
            return self._connection.execute(_marked(query), parameters or None)

    @contextmanager
    def _turn(self, lock: str) -> Iterator[None]:
        with self._told():
            self._sent(self._begin + lock)
        try:
            yield
            with self._told():
                ended = self._connection.execute("COMMIT").statusmessage
            if ended != "COMMIT":  # after a failed statement PostgreSQL takes it for ROLLBACK, and says no more of it
                raise StoreError(f"{self._where} has undone what was written: {ended}")
        except BaseException:
            with suppress(self._psycopg.Error):  # the server has done so already, if the connection is lost
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What PostgreSQL says, as errors of the store."""
        try:
            yield
        except self._psycopg.errors.DiskFull as error:
            raise StoreFullError(f"the disk of {self._where} is full") from error
        except self._psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0]
            raise StoreError(f"{self._where} cannot be used: {reason or type(error).__name__}") from error


def _marked(statement: str) -> bytes:
    """As psycopg wants its parameters."""
    return statement.replace("?", "%s").encode()
