"""`emostream capture --connect`: the capture processes of this host for an `emostream run --ingest` on another."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from emostream.errors import ConfigError
from stream.capture.sources import Source
from stream.capture.supervisor import Supervisor
from stream.serve.run import captures, stop_on_signals
from stream.sockets import security
from stream.transport.protocol import IngestAddress, Modality

EXIT_FAILED = 2


def capture(sources: Sequence[Source], endpoint: str, *, curve: Path | None = None) -> int:
    """Capture until a signal, or until every file is over; returns the exit code.

    Args:
        sources: What to capture; files are paced by the clock.
        endpoint: What `emostream run --ingest` printed.
        curve: Folder with this client's keys and the server's public one; None without CURVE.

    Raises:
        ConfigError: `endpoint` is no ZeroMQ endpoint.
        KeyFileError: A key file is missing or malformed.
    """
    if not endpoint.startswith(("tcp://", "ipc://")):
        raise ConfigError(
            f"--connect {endpoint}: wanted tcp://HOST:PORT, as `run --ingest` prints."
        )
    address = IngestAddress(endpoint)
    if curve is not None:
        keys = security.load_client_keys(curve)
        address = IngestAddress(
            endpoint,
            server_key=keys.server_public.decode(),
            client_key=keys.public.decode(),
            client_secret=keys.secret.decode(),
        )
    stopped = False
    failures: list[str] = []

    def failed(source: str, modality: Modality, problem: str) -> None:
        failures.append(f"{source}: {modality}: {problem}")
        print(failures[-1], file=sys.stderr, flush=True)

    def stop() -> None:
        # Not an Event: the thread that the signal interrupts may hold its lock.
        nonlocal stopped
        stopped = True

    with ExitStack() as stack:
        stop_on_signals(stop, stack)
        processes = [process for source in sources for process in captures(source)]
        supervisor = stack.enter_context(Supervisor(address, processes, on_failed=failed))
        supervisor.start()
        while not stopped and not supervisor.wait(timeout_s=0):
            time.sleep(0.2)
    return EXIT_FAILED if failures else 0
