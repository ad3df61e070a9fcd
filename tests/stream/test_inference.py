"""The loop's promises that need no media."""

import time

import pytest

from stream.config import InferenceConfig
from stream.inference import InferenceLoop
from stream.ingest import IngestServer
from stream.ingest_events import Connected, StateChanged
from stream.intake import Intake
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


def test_the_clock_uncertainty_of_another_host_is_published():
    intake = Intake(InferenceConfig(), {}, dynamic=True)
    intake.take(
        Connected(
            source="far", streams=("video",), pid=7, clock="host", lossless=False, lateness_s=0.15
        )
    )
    for uncertainty_s, said in ((0.0, False), (0.00042, True)):
        intake.take(
            StateChanged(
                source="far",
                stream="video",
                state="live",
                detail="",
                dropped_frames=0,
                dropped_audio_ms=0.0,
                restarts=0,
                clock_uncertainty_s=uncertainty_s,
            )
        )
        assert (
            "clock ± 0.4 ms" in intake.states["far"].status(time.perf_counter(), 0).detail
        ) == said
