"""The loop's promises that need no media."""

import pytest

from stream.config import InferenceConfig
from stream.inference import InferenceLoop
from stream.ingest import IngestServer
from stream.publisher import Publisher


def never() -> None:
    raise AssertionError("the model was loaded")


@pytest.mark.timeout(30)
def test_stopping_takes_no_lock():
    """A signal handler runs in a thread that may hold any of them: taking one would hang for ever."""
    with IngestServer(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(never, server, publisher, InferenceConfig(), {"cam0": "host"})
        with server._lock, publisher._lock, loop._lock:
            loop.stop()
        loop.run()  # ends at once, after its last status; whoever was to load the model is interrupted
