"""What becomes of a capture process whose device misbehaves in ways that real ones do only now and then."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.capture.device import EXIT_STUCK, index_or_name
from stream.transport.protocol import State
from tests.stream.rigs import CaptureProcess, until

ROOT = str(Path(__file__).parents[3])


@contextmanager
def faulty(fault: str) -> Iterator[CaptureProcess]:
    with CaptureProcess(
        "tests.stream.faulty_device", "--fault", fault, environment={"PYTHONPATH": ROOT}
    ) as capture:
        yield capture


def exit_code(capture: CaptureProcess) -> int:
    def ended() -> bool:
        capture.events += capture.server.poll(timeout_ms=20)
        assert capture.process is not None
        return capture.process.poll() is not None

    until(ended)
    assert capture.process is not None
    return capture.process.returncode


def states(capture: CaptureProcess) -> list[tuple[str, str]]:
    capture.events += capture.server.poll(timeout_ms=200)
    return [
        (e.message.state, e.message.detail) for e in capture.events if isinstance(e.message, State)
    ]


@pytest.mark.parametrize("text", ["rtsp://10.0.0.2/live", "yeti", "-1"])
def test_digits_are_an_index_and_anything_else_a_name(text: str) -> None:
    assert index_or_name("3") == 3
    assert index_or_name(text) == text


def test_a_driver_that_hangs_is_reported_and_its_process_ends() -> None:
    with faulty("hang") as capture:
        assert exit_code(capture) == EXIT_STUCK
        seen = states(capture)
    assert ("live", "") in seen
    assert ("lost", "device: no picture for 0.5 s") in seen  # by the deadline, while it hangs
    assert seen[-1] == ("lost", "its driver hangs; its process is started anew")


def test_a_process_that_is_to_stop_does_not_wait_for_its_driver() -> None:
    with faulty("hang-later") as capture:
        capture.hear(lambda e: isinstance(e.message, State) and e.message.state == "lost")
        assert capture.quit() == 0


def test_a_reader_that_crashes_is_no_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with faulty("crash") as capture:
        assert exit_code(capture) == 1  # which a supervisor restarts
    assert "RuntimeError: the reader crashed" in capfd.readouterr().err
