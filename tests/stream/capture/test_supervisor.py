"""Supervision of real processes: restarts, orderly ends, and no orphan whatever kills the parent."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.capture.device import Backoff
from stream.capture.supervisor import Capture, Supervisor
from stream.transport.protocol import Hello, IngestAddress, State
from tests.stream.receiver_rig import WAIT_S, Listening
from tests.stream.rigs import until

BEACON = """
import sys
from stream.capture.process import capture_parser, run_capture

def capture(link):
    link.send_state("video", "live")
    link.wait_stopped()

sys.exit(run_capture(capture_parser("beacon", "").parse_args(), capture, modalities=("video",)))
"""
# Says that it lives, then hangs as a driver may: in C, with the interpreter's lock held, deaf to signals.
STUCK = """
import ctypes, sys
from stream.capture.process import capture_parser, run_capture

def capture(link):
    link.send_state("video", "live")
    link.close()
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    for _ in range(2):  # the second time for ever
        libc.pthread_mutex_lock(mutex)

sys.exit(run_capture(capture_parser("stuck", "").parse_args(), capture, modalities=("video",)))
"""
CODES = """
import sys
from stream.capture.process import capture_parser
parser = capture_parser("codes", "")
parser.add_argument("--code", type=int)
code = parser.parse_args().code
print("first line", "the reason", sep="\\n", file=sys.stderr)
sys.exit(code)
"""
LEAKY = """
from stream.capture.process import capture_parser
parser = capture_parser("leaky", "")
parser.add_argument("--video")
raise RuntimeError(f"cannot read {parser.parse_args().video}")
"""
PARENT = """
import sys, time
from stream.transport.receiver import Receiver
from stream.transport.protocol import State
from stream.capture.supervisor import Capture, Supervisor

server = Receiver(step_s=0.5)
address = server.bind_local()
capture = Capture(module=sys.argv[1], source="cam", modalities=("video",))
supervisor = Supervisor(address, [capture, Capture(module=sys.argv[1], source="cam2", modalities=("video",))])
supervisor.start()
live = 0
while live < 2:
    live += sum(isinstance(event.message, State) for event in server.poll(100))
print(address.endpoint, flush=True)
while True:
    server.poll(1000)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the children's path with the modules above."""
    programs = {"beacon": BEACON, "stuck": STUCK, "codes": CODES, "leaky": LEAKY, "parent": PARENT}
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def receiver() -> Iterator[Listening]:
    with Listening() as receiver:
        yield receiver


def beacon(source: str = "cam", module: str = "beacon") -> Capture:
    return Capture(module=module, source=source, modalities=("video",))


def quick_backoff() -> Backoff:
    return Backoff(first_s=0.01, most_s=0.02)


def test_processes_connect_and_end_in_order(modules: Path, receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with Supervisor(address, [beacon("cam"), beacon("mic")]) as supervisor:
        supervisor.start()
        connected = receiver.wait_events(Hello, 2)
        pids = supervisor.pids()
        assert {event.source: [event.pid] for event in connected} == pids
    assert supervisor.pids() == {}
    assert supervisor.wait(0)
    assert supervisor.restarts("cam") == supervisor.restarts("mic") == 0


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_secrets_are_not_on_the_command_line(modules: Path, receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with Supervisor(address, [beacon()]) as supervisor:
        supervisor.start()
        pid = receiver.wait_events(Hello)[0].pid
        command = Path(f"/proc/{pid}/cmdline").read_text()
    assert address.endpoint in command
    assert address.token not in command


def test_a_killed_process_is_started_again_and_counted(modules: Path, receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with Supervisor(address, [beacon()], backoff=quick_backoff) as supervisor:
        supervisor.start()
        first = receiver.wait_events(State)[0]
        assert first.restarts == 0
        killed = receiver.of(Hello)[0].pid
        os.kill(killed, signal.SIGKILL)
        second = receiver.wait_events(State, 2)[1]
        assert receiver.of(Hello)[1].pid != killed
        assert supervisor.restarts("cam") == 1
        assert second.restarts == 0  # of the device, which a new process opened for the first time


def test_a_process_that_cannot_be_started_is_tried_again(
    modules: Path, receiver: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, refusals = subprocess.Popen, [OSError(errno.EAGAIN, "no process left")]

    def flaky(*arguments, **options) -> subprocess.Popen:
        if refusals:
            raise refusals.pop()
        return spawn(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", flaky)
    address = receiver.server.bind_local()
    with Supervisor(address, [beacon()], backoff=quick_backoff) as supervisor:
        supervisor.start()
        receiver.wait_events(Hello)
        assert supervisor.restarts("cam") == 1


def test_a_user_error_is_reported_with_its_reason_and_not_retried(
    modules: Path, receiver: Listening
) -> None:
    failures: list[tuple[str, str, str]] = []
    capture = Capture(
        module="codes", source="cam", modalities=("video", "audio"), arguments=["--code", "2"]
    )
    supervisor = Supervisor(
        receiver.server.bind_local(),
        [capture],
        on_failed=lambda *failure: failures.append(failure),
        backoff=quick_backoff,
    )
    with supervisor:
        supervisor.start()
        assert supervisor.wait(WAIT_S)
    assert failures == [("cam", "video", "the reason"), ("cam", "audio", "the reason")]
    assert supervisor.restarts("cam") == 0


def test_a_process_that_has_done_its_work_is_not_restarted(
    modules: Path, receiver: Listening
) -> None:
    capture = Capture(
        module="codes", source="cam", modalities=("video",), arguments=["--code", "0"]
    )
    with Supervisor(receiver.server.bind_local(), [capture]) as supervisor:
        supervisor.start()
        assert supervisor.wait(WAIT_S)
    assert supervisor.restarts("cam") == 0


def test_a_process_that_keeps_dying_is_retried_with_growing_pauses(
    modules: Path, receiver: Listening
) -> None:
    pauses: list[float] = []
    enough = threading.Event()

    class Recorded(Backoff):
        def next_s(self) -> float:
            pauses.append(super().next_s())
            if len(pauses) == 4:
                enough.set()
            return pauses[-1]

    capture = Capture(
        module="codes", source="cam", modalities=("video",), arguments=["--code", "1"]
    )
    supervisor = Supervisor(
        receiver.server.bind_local(), [capture], backoff=lambda: Recorded(first_s=0.01, most_s=0.04)
    )
    with supervisor:
        supervisor.start()
        assert enough.wait(WAIT_S)
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.04]


def test_a_process_that_does_not_listen_is_killed_in_the_end(
    modules: Path, receiver: Listening
) -> None:
    with Supervisor(receiver.server.bind_local(), [beacon(module="stuck")]) as supervisor:
        supervisor.start()
        receiver.wait_events(State)
        assert supervisor.pids()
    assert supervisor.pids() == {}
    assert supervisor.restarts("cam") == 0


def test_stopping_while_it_pauses_starts_nothing(modules: Path, receiver: Listening) -> None:
    class Long(Backoff):
        def next_s(self) -> float:
            paused.set()
            return 3600.0

    paused = threading.Event()
    capture = Capture(
        module="codes", source="cam", modalities=("video",), arguments=["--code", "1"]
    )
    with Supervisor(receiver.server.bind_local(), [capture], backoff=Long) as supervisor:
        supervisor.start()
        assert paused.wait(WAIT_S)
    assert supervisor.restarts("cam") == 0


def test_a_refused_process_gives_up(modules: Path, receiver: Listening) -> None:
    address = receiver.server.bind_local()
    wrong = IngestAddress(address.endpoint, "guess", address.server_key)
    failures: list[tuple[str, str, str]] = []
    supervisor = Supervisor(wrong, [beacon()], on_failed=lambda *failure: failures.append(failure))
    with supervisor:
        supervisor.start()
        assert supervisor.wait(WAIT_S)
    assert len(failures) == 1
    assert failures[0][:2] == ("cam", "video")
    assert "wrong token" in failures[0][2]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize(
    "module",
    [
        "beacon",
        pytest.param(
            "stuck",
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="only the Linux kernel helps here"
            ),
        ),
    ],
)
def test_no_orphan_and_no_file_survives_a_killed_parent(modules: Path, module: str) -> None:
    """The children hold the parent's stdout, so its end of file comes when the last of them has gone."""
    parent = subprocess.Popen(
        [sys.executable, "-P", str(modules / "parent.py"), module],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        endpoint = parent.stdout.readline().strip()
        assert endpoint.startswith(("ipc://", "tcp://"))
        directory = Path(endpoint.removeprefix("ipc://")).parent
        assert directory.exists()
        assert directory.stat().st_mode & 0o777 == 0o700
        parent.kill()
        assert parent.stdout.read() == ""  # times out with the test if a child stays
    if module == "beacon":
        assert not directory.exists()
    else:  # a child that hangs cannot clean up, but whoever starts next does
        assert directory.parent == Path(tempfile.gettempdir())
        with Listening() as receiver:
            receiver.server.bind_local()
            assert not directory.exists()


def test_neither_a_command_line_nor_a_traceback_shows_what_is_secret(
    modules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = "http://me:secret@127.0.0.1:9/v?token=secret"
    capture = Capture(
        module="leaky", source="cam", modalities=("video",), arguments=["--video", url]
    )
    with (
        caplog.at_level("DEBUG"),
        Supervisor(IngestAddress("ipc:///nowhere"), [capture], backoff=quick_backoff) as supervisor,
    ):
        supervisor.start()
        until(lambda: supervisor.restarts("cam") > 0)
    assert "cannot read http://…@127.0.0.1:9/v?token=…" in caplog.text
    assert "secret" not in caplog.text
