"""A process of a server and the channel to it: how it is started and ended, and how it begins."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taxon.service.workers.channel import Channel, socket_pair

# Enough to end after a message that says so; whoever takes longer hangs.
ENDING_S = 2.0
KILLED = -9
PR_SET_PDEATHSIG = 1


class ChildProcess:
    """A running process. Nothing here blocks but `wait`."""

    def __init__(
        self,
        program: Sequence[str],
        descriptors: Sequence[int],
        words: Sequence[str],
        on_message: Callable[[Any], None],
        on_end: Callable[[], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it. Must be called on the event loop.

        Args:
            program: First words of its command line; next are its descriptors, the first one its end of the channel,
                joined by commas.
            descriptors: Of memory that it shares.
            words: Last words of its command line.
            on_message: Told every message.
            on_end: Told that it has ended, or is about to.
            environment: Of the process; None: this one's.

        Raises:
            OSError: No process or descriptor is to be had now.
        """
        ours, theirs = socket_pair()
        numbers = theirs.fileno(), *descriptors
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own module
                [*program, ",".join(map(str, numbers)), *words],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.channel = Channel(ours, on_message, on_end)
        self.pid = self._popen.pid

    def cpu_s(self) -> float:
        """What it has computed, on all cores together; 0 if it has ended."""
        try:
            facts = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = facts.rpartition(")")[2].split()[11:13]  # see proc(5); the name before may hold spaces
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def send(self, message: object) -> None:
        """Tells it something."""
        self.channel.send(message)

    def kill(self) -> None:
        """Ends it at once; `on_end` follows."""
        self._popen.kill()

    def close(self) -> None:
        """Lets it end after what it does now; `on_end` does not follow."""
        self.channel.close()

    def wait(self, timeout_s: float = ENDING_S) -> int:
        """Waits for the end of one that was closed or killed; kills it after `timeout_s`. Returns its status."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return KILLED  # the kernel has not let go of it yet


def program(module: str) -> Sequence[str]:
    """What starts a module of this package."""
    # -P: the folder that the server was started in is not searched for packages.
    return sys.executable, "-P", "-m", module


def begin() -> None:
    """What a child does first. It dies with its server, which one that hangs in native code would outlive. Signals to
    the whole group reach the server too, which drains; a child ends when its socket closes.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
