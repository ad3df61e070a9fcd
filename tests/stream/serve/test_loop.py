"""The loop's promises that need no media."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from emostream.inference.recognizer import Recognizer
from emostream.model.presets import from_preset
from stream.pubsub.client import EmotionClient
from stream.pubsub.publisher import Publisher
from stream.serve.loop import InferenceLoop
from stream.transport.events import Event, PeerLost
from stream.transport.protocol import Hello, State
from stream.transport.receiver import Receiver
from stream.transport.sender import CaptureLink
from stream.windows.config import InferenceConfig
from stream.windows.sorting import Sorter
from stream.windows.source_state import RateMeter, SourceState
from stream.windows.windower import Windower
from tests.stream.receiver_rig import WAIT_S


def never() -> None:
    raise AssertionError("the model was loaded")


@pytest.mark.timeout(30)
def test_stopping_takes_no_lock():
    """A signal handler runs in a thread that may hold any of them: taking one would hang for ever."""
    with Receiver(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(never, server, publisher, InferenceConfig(), {"cam0": "host"})
        with server._lock, publisher._lock, loop._lock:
            loop.stop()
        loop.run()  # ends at once, after its last status; whoever was to load the model is interrupted


def test_a_signal_during_the_import_of_torch_waits_for_its_end(monkeypatch):
    """The handler must not raise in there: the process would abort."""
    done = []

    def importing() -> None:
        loop.stop()
        done.append(True)

    monkeypatch.setattr("stream.serve.loop.import_torch", importing)
    with Receiver(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(never, server, publisher, InferenceConfig(), {"cam0": "host"})
        loop.run()
    assert done


def test_what_breaks_over_a_stop_is_no_failure_and_what_breaks_by_itself_is():
    """Libraries have contexts that fail where they are left half-way."""

    def interrupted() -> None:
        try:
            loop.stop()
        finally:
            raise UnboundLocalError("half-way")

    def broken() -> None:
        raise UnboundLocalError("by itself")

    with Receiver(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(interrupted, server, publisher, InferenceConfig(), {"cam0": "host"})
        loop.run()
    with Receiver(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(broken, server, publisher, InferenceConfig(), {"cam0": "host"})
        with pytest.raises(UnboundLocalError, match="by itself"):
            loop.run()


def test_the_last_label_of_a_file_gets_its_reasons_though_its_end_was_told_later():
    with Receiver(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(never, server, publisher, InferenceConfig(people=0), {"clip": "media"})
        loop._recognizer = Recognizer(*from_preset("tiny"), max_new_tokens=2)
        state = loop._states["clip"]
        state.windower = windower = Windower("clip", modalities=("audio",), lossless=True)
        state.lossless = True
        windower.limit_sound(loop._recognizer.most_samples)
        windower.add_pcm(0.0, np.random.default_rng(0).normal(0, 0.1, 72_000).astype(np.float32))
        first, last = iter(windower.advance, None)
        for window in (first, last):
            loop._label([(state, window, time.perf_counter())])
            while loop._recognizer.reasoning_sources:
                loop._reason()
        assert state.answers == 1  # of the first; the last one's are not due yet
        assert not loop._explain_the_last()  # more may come
        windower.mark_end()
        assert loop._explain_the_last()
        assert loop._explained["clip"].label.window.id == last.id
        while loop._recognizer.reasoning_sources:
            loop._reason()
        assert state.answers == 2
        assert not loop._explain_the_last()


def connected(source: str) -> Event:
    return said(Hello(source, ("video",), 7, "host", False), source)


def device_state(source: str, state: str = "live", **options) -> Event:
    return said(State("video", state, **options), source)


def said(message: Hello | State | PeerLost, source: str) -> Event:
    hello = Hello(source, ("video",), 7, "host", False)
    return Event(hello=hello, message=message, received_s=0.0)


def test_the_clock_uncertainty_of_another_host_is_published():
    sorter = Sorter(InferenceConfig(), {}, dynamic=True)
    sorter.take(connected("far"))
    for uncertainty_s, said in ((0.0, False), (0.00042, True)):
        sorter.take(device_state("far", clock_uncertainty_s=uncertainty_s))
        assert (
            "clock ± 0.4 ms" in sorter.states["far"].status(time.perf_counter(), 0).detail
        ) == said


@pytest.mark.parametrize(
    ("state", "detail", "published"),
    [
        ("live", "", ""),
        ("live", "nothing but zeros", "nothing but zeros"),
        ("lost", "", "video lost"),
        ("retrying", "no answer", "video retrying: no answer"),
    ],
)
def test_what_a_device_says_of_itself_is_published(state, detail, published):
    sorter = Sorter(InferenceConfig(), {"cam0": "host"}, dynamic=False)
    sorter.go_live(30 * 16_000)
    sorter.take(connected("cam0"))
    sorter.take(device_state("cam0", state=state, detail=detail))
    assert sorter.states["cam0"].status(time.perf_counter(), 0).detail == published


@pytest.mark.parametrize("live", [False, True])
def test_why_a_device_gave_up_outlasts_its_silence(live):
    """Its process has ended, and falls silent seconds later; a new one's silence is news again."""
    sorter = Sorter(InferenceConfig(), {"cam0": "host"}, dynamic=False)
    if live:
        sorter.go_live(30 * 16_000)
    sorter.take(connected("cam0"))
    sorter.fail("cam0", "video", "no driver")
    sorter.take(said(PeerLost("silent"), "cam0"))
    sorter.go_live(30 * 16_000)

    def detail() -> str:
        return sorter.states["cam0"].status(time.perf_counter(), 0).detail

    assert detail() == "no driver"
    sorter.take(connected("cam0"))
    assert detail() == ""
    sorter.take(said(PeerLost("silent"), "cam0"))
    assert detail() == "silent"


def test_what_changes_between_two_heartbeats_is_published(monkeypatch):
    monkeypatch.setattr("stream.serve.loop.STATUS_EVERY_S", 3600.0)

    def tell_and_hear():
        link.wait_ready(WAIT_S)
        for said, heard in (("covered", "loading tiny; covered"), ("", "loading tiny")):
            link.send_state("video", "live", said)
            while client.recv(timeout_ms=20_000).detail != heard:
                pass
        loop.stop()  # as a signal does; the model was never loaded

    with (
        Receiver(step_s=0.5) as receiver,
        Publisher("tcp://127.0.0.1:*") as publisher,
        EmotionClient(publisher.endpoint) as client,
        CaptureLink(receiver.bind_local(), source="cam0", modalities=("video",)) as link,
    ):
        loop = InferenceLoop(
            tell_and_hear,
            receiver,
            publisher,
            InferenceConfig(model_name="tiny"),
            {"cam0": "host"},
        )
        loop.run()


def test_a_visitor_of_whom_no_window_is_left_is_told_to_have_gone():
    with (
        Receiver(step_s=0.5) as receiver,
        Publisher("tcp://127.0.0.1:*") as publisher,
        EmotionClient(publisher.endpoint) as client,
    ):
        loop = InferenceLoop(
            lambda: Recognizer(*from_preset("tiny"), max_new_tokens=2),
            receiver,
            publisher,
            InferenceConfig(people=0),
            {},
            dynamic=True,
        )
        running = threading.Thread(target=loop.run)
        running.start()
        try:
            address = receiver.bind_local()
            with CaptureLink(address, source="visitor-1", modalities=("video", "audio")) as link:
                link.wait_ready(WAIT_S)
                assert link.wait_started(WAIT_S)
                link.send_end()
                assert link.wait_stopped(WAIT_S)
            deadline_s = time.monotonic() + 10
            while client.recv(timeout_ms=5_000).state != "stopped":
                assert time.monotonic() < deadline_s
        finally:
            loop.stop()
            running.join()


def test_what_the_receiving_thread_shares_is_touched_under_the_lock(monkeypatch):
    """Without it a status iterates over losses that another thread adds to, and rates lose their newest times."""
    locked: list[tuple[str, bool]] = []

    def noted(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def wrapper(*arguments):
            locked.append((name, loop._lock.locked()))
            return method(*arguments)

        monkeypatch.setattr(kind, name, wrapper)

    with Receiver(step_s=0.5) as server, Publisher("tcp://127.0.0.1:*") as publisher:
        loop = InferenceLoop(never, server, publisher, InferenceConfig(), {"clip": "media"})
        timing = SimpleNamespace(encode_s=0.1, prefill_s=0.1, decode_s=0.1)
        recognition = SimpleNamespace(
            label="happy", scores={"happy": 0.75, "sad": 0.25}, timing=timing, baseline_s=None
        )
        loop._recognizer = SimpleNamespace(
            recognize=lambda windows: [recognition] * len(windows), reasoning_sources={"clip"}
        )
        windower = Windower("clip", modalities=("audio",), lossless=True)
        windower.add_pcm(0.0, np.ones(4 * 16_000, np.float32))
        noted(SourceState, "status")
        noted(RateMeter, "count")
        loop._label([(loop._states["clip"], windower.advance(), time.perf_counter())])
    assert locked == [("status", True), ("count", True)]
