"""`emostream annotate --ray` on a real cluster of two nodes, one of which is killed amid the run."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stream.commands.cli import main
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream.rigs import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WAIT_S = 300.0
#: Ray takes the loopback for this host's address, in clusters and in what connects to them.
ENVIRONMENT = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}
PYTHON = (sys.executable, "-P", "-m")


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address, and the process that does what `ask` asks for."""
    # With the working directory on its path, as the module is a test's; the workers import what is installed.
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stream.annotate.ray_cluster"],
        cwd=Path(__file__).parents[3],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("127.0.0.1:")
            yield address, process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def ask(nodes: subprocess.Popen[str], word: str) -> str:
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    nodes.stdin.write(f"{word}\n")
    nodes.stdin.flush()
    return nodes.stdout.readline().strip()


class Server(ThreadingHTTPServer):
    """Serves files; clips are held back while `gate` is shut.

    Attributes:
        held: Clips that somebody is waiting for.
    """

    def __init__(self, folder: Path):
        self.gate = threading.Event()
        self.gate.set()
        self.held: set[str] = set()
        super().__init__(("127.0.0.1", 0), partial(_Gated, directory=str(folder)))

    @property
    def manifest(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/list.jsonl"


class _Gated(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path.startswith("/day") and not self.server.gate.is_set():
            self.server.held.add(self.path)
            assert self.server.gate.wait(WAIT_S)
        # Whoever asked may have been killed.
        with contextlib.suppress(ConnectionError):
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """A folder with a manifest, and its server."""
    folder = tmp_path_factory.mktemp("media")
    names = [f"day {n % 2}/{n}.mp4" for n in range(8)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        video = Video(duration_s=12, size=(64, 48), fps=10)
        write_media(folder / name, video, Audio(duration_s=12, sound=noise(number)))
    (folder / "broken.mp4").write_bytes(b"no media file")
    lines = [json.dumps({"path": name}) for name in [*names, names[0], "broken.mp4", "gone.mp4"]]
    (folder / "list.jsonl").write_text("\n".join(lines) + "\n")
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, server
        server.shutdown()
        thread.join()


def start(manifest: str, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*PYTHON, "stream.commands.cli", "annotate", manifest, "--out", out.as_uri(), *more]
    command += ["--reasons", "none", "--format", "jsonl,eaf"]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, errors  # two files cannot be had
    return errors


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_killed_nodes_and_runs_leave_what_one_machine_does(tmp_path, cluster, served) -> None:
    address, nodes = cluster
    _, server = served
    url = server.manifest
    alone, out = tmp_path / "alone", tmp_path / "out"
    with start(url, alone) as process:
        assert "8 files annotated, 0 were done before, 2 failed" in finish(process)
    with start(url, out, "--ray", address) as process:
        until(lambda: len(list(out.glob(".rows/*/*.json"))) >= 1, WAIT_S, process)
        process.kill()
        process.communicate(timeout=WAIT_S)
    # Its workers outlive it by a moment, and would ask for clips.
    assert ask(nodes, "wait") == "idle"
    done = len(list(out.glob(".rows/*/*.json")))
    assert done < 8
    server.gate.clear()
    with start(url, out, "--ray", address) as process:
        until(lambda: len(server.held) == 2, WAIT_S, process)  # a clip on each node
        assert ask(nodes, "kill") == "killed"
        assert process.stderr is not None
        # The worker may outlive its node by a second, and must not finish its clip.
        errors = ""
        while "a worker was lost over day " not in errors:
            line = process.stderr.readline()
            assert line, errors
            errors += line
        server.gate.set()
        errors += process.stderr.read()
        assert process.wait(WAIT_S) == 1  # two files cannot be had
    assert f"{8 - done} files annotated, {done} were done before, 2 failed" in errors
    for name in ("broken.mp4", "gone.mp4"):
        assert sum(line.startswith(f"{name}: ") for line in errors.splitlines()) == 1
    assert tree(out) == tree(alone)


def test_what_a_cluster_cannot_do_is_said_in_one_line(tmp_path, capfd, served) -> None:
    folder, _ = served
    asked = ["annotate", str(folder), "--out", str(tmp_path / "out"), "--ray"]
    assert main([*asked, "127.0.0.1:1"]) == 2
    said = capfd.readouterr().err
    assert "--ray 127.0.0.1:1: there is no such cluster" in said


def test_a_manifest_says_what_is_wrong_with_it(tmp_path, capfd) -> None:
    for line in ("{}", "no JSON", '{"path": 3}', "[]"):
        (tmp_path / "list.jsonl").write_text(f'{{"path": "a.mp4"}}\n\n{line}\n')
        assert main(["annotate", str(tmp_path / "list.jsonl"), "--out", str(tmp_path)]) == 2
        assert 'list.jsonl:3: wanted a JSON object with a "path"' in capfd.readouterr().err
