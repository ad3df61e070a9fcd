"""The subscribers in `examples/`, run as a user runs them, against a real publisher."""

import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.pubsub.publisher import Publisher
from tests.stream.events import label, reasoning, status
from tests.system_packages import NODE

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the JavaScript example, with zeromq.js installed beside a copy of it."""
    NODE.skip_if_missing()
    folder = tmp_path_factory.mktemp("node")
    for name in ("subscribe.mjs", "package.json"):
        shutil.copy(EXAMPLES / name, folder)
    install = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if install.returncode:
        pytest.skip(f"npm cannot install zeromq: {install.stderr.strip().splitlines()[-1:]}")
    return ["node", str(folder / "subscribe.mjs")]


@pytest.fixture(params=["python", "node"])
def command(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "node":
        example: list[str] = request.getfixturevalue("node_example")
        return example
    return [sys.executable, str(EXAMPLES / "subscribe.py")]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        yield publisher


def test_prints_labels_reasons_and_status(command: list[str], publisher: Publisher) -> None:
    publisher.publish(status(detail="warming up", state="starting"))
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, publisher.endpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines: queue.Queue[str] = queue.Queue()
        stdout = process.stdout

        def read() -> None:
            for line in stdout:
                lines.put(line)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            # The last value, which was published before the subscriber existed.
            assert lines.get(timeout=60).split(maxsplit=2) == ["cam0", "starting", "warming up\n"]
            publisher.publish(label(top="sad"))
            publisher.publish(reasoning(done=False, answer=None, agrees_with_label=None))
            publisher.publish(reasoning(think="Die Brauen – tief.", answer="sad"))
            publisher.publish(status("cam1", state="stopped"))
            printed = ""
            while "stopped" not in printed:
                printed += lines.get(timeout=60)
        finally:
            process.terminate()
            error = process.stderr.read()
            reader.join()
    assert printed.startswith("cam0 sad")
    assert "0.7" in printed
    assert printed.count("because:") == 1
    assert "cam0 sad because: Die Brauen – tief." in printed
    assert "Error" not in error


def test_the_python_example_is_ten_lines() -> None:
    code = [
        line
        for line in (EXAMPLES / "subscribe.py").read_text().splitlines()
        if line.strip() and not line.startswith('"""')
    ]
    assert len(code) == 10
