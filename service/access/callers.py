"""Who may call, and what: one file, written by `taxon keys`, read by the service.

A key is 32 random bytes, so the file holds its SHA-256 and no more: what the slow hashes of passwords are against is
trying them out, hopeless with 2^256 keys; and a fast hash can be taken for every call.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from taxon.bundle import atomic_files, folder_lock
from taxon.service.errors import StartError

Group = Literal["classify", "inference", "feedback", "explain", "admin", "metrics"]
GROUPS: tuple[Group, ...] = get_args(Group)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
IDENTITY = r"^(dns|uri|subject):.+$"
IDENTITY_PROPERTIES = {"dns": "peer_dns", "uri": "peer_uri", "subject": "x509_subject"}
"""What gRPC calls what a client's certificate says."""
PREFIX = "taxon"
SECRET_BYTES = 32
MAX_KEY_CHARACTERS = 256
MOST_CALLERS = 1024
MOST_CALLS = 2**20
MOST_A_SECOND = 1e6


class Caller(BaseModel):
    """One who may call."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=NAME)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]
    key_id: Annotated[str | None, Field(pattern=r"^[0-9a-f]{16}$")] = None
    """The part of the key that says which it is."""
    key_sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    """Of the whole key."""
    identity: Annotated[str | None, Field(pattern=IDENTITY)] = None
    """Instead of a key: what the client's certificate must say, as `dns:`, `uri:` or `subject:`."""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    max_concurrent_calls: Annotated[int | None, Field(ge=1, le=MOST_CALLS)] = None
    """None: as the service was told for all."""
    max_calls_per_second: Annotated[float | None, Field(gt=0, le=MOST_A_SECOND)] = None
    """None: as the service was told for all."""

    @model_validator(mode="after")
    def _is_known_by_something(self) -> "Caller":
        if (self.key_id is None) != (self.key_sha256 is None) or (self.key_id is None) == (self.identity is None):
            raise ValueError("a caller has either key_id and key_sha256, or an identity")
        return self


class Callers(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    callers: Annotated[tuple[Caller, ...], Field(max_length=MOST_CALLERS)] = ()

    @model_validator(mode="after")
    def _are_told_apart(self) -> "Callers":
        for what in ("name", "key_id", "identity"):
            given = [value for caller in self.callers if (value := getattr(caller, what)) is not None]
            if len(set(given)) < len(given):
                raise ValueError(f"two callers have the same {what}")
        return self


class Known:
    """Finds callers by what they show."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._by_key = {
            caller.key_id: (bytes.fromhex(caller.key_sha256), caller)
            for caller in callers
            if caller.key_id and caller.key_sha256
        }
        self._by_identity = {caller.identity: caller for caller in callers if caller.identity}
        self.asks_certificates = bool(self._by_identity)
        """Whether anybody is known by a certificate."""

    def by_key(self, key: str) -> Caller | None:
        """Whose key it is, unless it has expired. Takes as long whether there is such a key or not."""
        if len(key) > MAX_KEY_CHARACTERS:
            return None
        key_id = key[len(PREFIX) + 1 :].partition("_")[0]
        expected, caller = self._by_key.get(key_id, (bytes(32), None))
        shown = hashlib.sha256(key.encode(errors="replace")).digest()
        return caller if hmac.compare_digest(shown, expected) and caller and _lasts(caller) else None

    def by_certificate(self, properties: Mapping[str, Iterable[bytes]]) -> Caller | None:
        """Whose certificate it is.

        Args:
            properties: Of the connection, as gRPC's authentication context has them.
        """
        for kind, name in IDENTITY_PROPERTIES.items():
            for value in properties.get(name, ()):
                caller = self._by_identity.get(f"{kind}:{value.decode(errors='replace')}")
                if caller and _lasts(caller):
                    return caller
        return None


def read(file: Path) -> Callers:
    """Reads the file.

    Raises:
        StartError: It cannot be read, or is no such file.
    """
    try:
        return Callers.model_validate_json(file.read_bytes())
    except OSError as error:
        raise StartError(f"--keys {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        told = ": ".join([*(str(step) for step in fault["loc"]), fault["msg"]])
        raise StartError(f"--keys {file} is no file of `taxon keys`: {told}") from error


def add(file: Path, caller: Caller) -> None:
    """Adds a caller; the file is made if there is none.

    Raises:
        StartError: The file is no such file.
        ValueError: The name or the identity is taken.
        OSError: The file cannot be written.
    """
    with folder_lock.held(file.absolute().parent):
        callers = read(file).callers if file.exists() else ()
        if any(caller.name == other.name for other in callers):
            raise ValueError(f"{file} has a caller {caller.name!r} already: revoke it first, or choose another name")
        if caller.identity and any(caller.identity == other.identity for other in callers):
            raise ValueError(f"{file} has a caller with the identity {caller.identity} already")
        _write(file, (*callers, caller))


def revoke(file: Path, name: str) -> None:
    """Takes a caller out.

    Raises:
        StartError: The file cannot be read.
        ValueError: It has no such caller.
        OSError: The file cannot be written.
    """
    with folder_lock.held(file.absolute().parent):
        callers = read(file).callers
        left = tuple(caller for caller in callers if caller.name != name)
        if len(left) == len(callers):
            raise ValueError(f"{file} has no caller {name!r}")
        _write(file, left)


def new_key() -> tuple[str, str, str]:
    """A new key, the part of it that says which it is, and its SHA-256."""
    key_id = secrets.token_hex(8)
    key = f"{PREFIX}_{key_id}_{secrets.token_hex(SECRET_BYTES)}"
    return key, key_id, hashlib.sha256(key.encode()).hexdigest()


def _write(file: Path, callers: Sequence[Caller]) -> None:
    # Anybody may read it: it holds no secret, and a service that cannot read it would not learn of a revocation.
    content = Callers(callers=tuple(callers)).model_dump(mode="json", exclude_none=True)
    atomic_files.write(file, json.dumps(content, indent=1) + "\n")


def _lasts(caller: Caller) -> bool:
    return caller.expires is None or time.time() < caller.expires.timestamp()
