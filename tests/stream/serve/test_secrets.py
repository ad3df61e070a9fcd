"""What is secret in a camera's URL stays in the processes that use it, whatever fails."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stream.pubsub.messages import Event, Status
from stream.pubsub.recording import Recorder
from tests.stream.live_rig import live, run_command

LOGIN, TOKEN = "admin:sesame", "abracadabra"
SECRETS = ("admin", "sesame", TOKEN)


class Guarded(http.server.BaseHTTPRequestHandler):
    """Knows nobody: 401 for every address but `/page`, which is a page of text."""

    def do_GET(self) -> None:
        page = b"<html>welcome</html>" * 100
        self.send_response(200 if self.path.startswith("/page") else 401)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("video_fault", ["unauthorized", "scheme"])
def test_no_message_and_no_process_shows_them(
    video_fault: str, guarded: str, tmp_path: Path
) -> None:
    def url(fault: str) -> str:
        scheme = "unheard" if fault == "scheme" else "http"
        host = "127.0.0.1:9" if fault == "refused" else guarded
        return f"{scheme}://{LOGIN}@{host}/{fault}?token={TOKEN}"

    faults = ["refused", "unauthorized", "page", "scheme"]
    lines = [line for fault in faults for line in ("--source", f"{fault}={url(fault)}")]
    options = tmp_path / "options"
    options.write_text("\n".join([*lines, "--video", url(video_fault), "--audio", "none"]))
    waiting = dict(zip(faults, faults, strict=True)) | {"cam0": video_fault}
    said: list[str] = []

    def all_have_failed(event: Event) -> bool:
        if isinstance(event, Status) and event.state != "starting":
            fault = waiting.get(event.source)
            if fault and f"…@127.0.0.1:9/{fault}?token=…" in event.detail.replace(
                guarded, "127.0.0.1:9"
            ):
                del waiting[event.source]
        return not waiting

    quick = ("--window-s", "2", "--reason-every-s", "0")
    with live(*quick, f"@{options}", verbose=True) as running:
        running.until(all_have_failed)
        commands = _command_lines(psutil.Process(running.process.pid))
        running.send()
        running.until_stopped()
        running.wait()
        said += running.said
        with Recorder(tmp_path / "out.jsonl") as recorder:
            for event in running.events:
                recorder.write(event)
    recorded = (tmp_path / "out.jsonl").read_text()
    assert guarded in recorded
    for secret in SECRETS:
        assert secret not in recorded
        assert secret not in "\n".join(said)
        assert secret not in "\n".join(commands)


def _command_lines(parent: psutil.Process) -> list[str]:
    found = []
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it gave up meanwhile
            found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "http://admin:sesame@127.0.0.1:9/v?token=abracadabra"),
        ("run", "--source", "cam$=http://admin:sesame@127.0.0.1:9/v?token=abracadabra"),
        ("run", "--source", "admin:sesame@127.0.0.1:9/v?token=abracadabra"),
        ("infer", "http://admin:sesame@127.0.0.1:9/v?token=abracadabra", "--out", "out.jsonl"),
    ],
)
def test_no_refusal_shows_them(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run_command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "127.0.0.1:9" in done.stderr
    assert not any(secret in done.stderr + done.stdout for secret in SECRETS)
