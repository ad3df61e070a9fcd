"""Every command in README.md and docs/: run as it stands, or, where that takes a device, a GPU or hours, parsed.

Commands run in the order of the documents below, in one folder, so that later ones find what earlier ones made.
Endpoints are replaced by free ones on this machine, and sizes by small ones: flags that stand later on a line win.
"""

import argparse
import importlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Label, Status
from stream.pubsub.publisher import Publisher
from stream.sockets.security import load_server_keys
from tests.documented_workspace import fill
from tests.documents import LANGUAGES, ROOT, Block, blocks, commands, documents
from tests.stream import events

pytestmark = pytest.mark.slow

WAIT_S = 120.0
LOCAL = "tcp://127.0.0.1:*"

ORDER = (
    "docs/corpora.md",
    "docs/training.md",
    "docs/faithful.md",
    "docs/gpus.md",
    "docs/export.md",
    "docs/live.md",
    "docs/hosts.md",
    "README.md",
)
"""These first, the others after them by name."""

MADE_ELSEWHERE = "tests/test_packaging.py installs the wheel; make is .ci/run's"
DEVICE = "a camera or microphone; tests/stream/capture/test_live_devices.py"
HUB = "a download from the hub; tests/emostream/model/test_load.py loads folders of that layout"
RENDERING = "minutes of rendering; docs/corpora.md has it with a few clips"
BENCHMARK = "minutes of measuring"
GPU = "a CUDA GPU"

NOT_RUN = {
    "make demo": f"{MADE_ELSEWHERE}; tests/stream/commands/test_demo.py",
    "make test": MADE_ELSEWHERE,
    "make test-versions": f"{MADE_ELSEWHERE}; all tests, twice",
    "make lint": MADE_ELSEWHERE,
    "make format": "it would change the source",
    "make docs": "tests/test_documents.py builds the site",
    "make pictures": "a live run; the pictures are committed",
    "pip install -e '.[onnx]'": MADE_ELSEWHERE,
    "pip install -e '.[onnx,train]'": MADE_ELSEWHERE,
    "pip install --no-deps .": MADE_ELSEWHERE,
    "pip install pyzmq msgspec": MADE_ELSEWHERE,
    "pip install -e '.[bridges]'": MADE_ELSEWHERE,
    "pip install -e '.[annotate]'": MADE_ELSEWHERE,
    "pip install -e '.[annotate,ray]'": MADE_ELSEWHERE,
    "emostream annotate s3://bucket/list.jsonl --out s3://bucket/annotated "
    "--ray auto": "tests/stream/annotate/test_cluster.py",
    "cd examples && npm install && node subscribe.mjs": "tests/stream/pubsub/test_examples.py",
    "python examples/subscribe.py": "tests/stream/pubsub/test_examples.py",
    "tensorboard --logdir runs": "a web server of another project's",
    "emostream run": DEVICE,
    "emostream run --model tiny": DEVICE,
    "emostream run --people all": f"{DEVICE}; tests/stream/serve/test_people.py",
    "emostream run --web": f"{DEVICE}; tests/stream/web",
    "emostream run --web --video none --audio none": "until it is interrupted; tests/stream/web",
    "emostream demo --web": "until it is interrupted; tests/stream/web",
    "emostream web": "until it is interrupted; tests/stream/web",
    "emostream web --host 0.0.0.0 --token --tls-cert cert.pem --tls-key key.pem": "tests/stream/web",
    "pip install -e '.[web]'": MADE_ELSEWHERE,
    "emostream run --video 1 --audio 2": DEVICE,
    "emostream run --video http://127.0.0.1:8080/video.mjpg --audio none": DEVICE,
    "emostream run --video rtsp://camera.local/stream --audio none --name door": DEVICE,
    "emostream run --model runs/grpo/model": DEVICE,
    "emostream run --model my-model --engines engines": DEVICE,
    "emostream capture --connect tcp://model-host:5557 --name kitchen --curve keys": DEVICE,
    "emostream run --model StarJiaxing/R1-Omni-0.5B --device cuda": f"{HUB}; {GPU}",
    "emostream run --model R1-Omni-0.5B --device cuda": GPU,
    "CUDA_VISIBLE_DEVICES=0 emostream run --source left=clip.mp4 --model R1-Omni-0.5B "
    "--bind tcp://127.0.0.1:5556": GPU,
    "CUDA_VISIBLE_DEVICES=1 emostream run --source right=other.mp4 --model R1-Omni-0.5B "
    "--bind tcp://127.0.0.1:5557": GPU,
    "emostream run --model R1-Omni-0.5B --engines engines-int8 --dtype bfloat16 --audio-context-s 5 "
    "--source clip.mp4 --pace max": "Whisper's context of 30 s; tests/export serves a shorter one",
    "torchrun --nproc_per_node 4 -m training.cli grpo --config half-b.yaml --out runs/half-b": GPU,
    "emostream-train corpus synth --out corpora/train --clips 12000 --seed 0": RENDERING,
    "emostream-train corpus synth --out corpora/test --clips 2100 --seed 0 --split test": RENDERING,
    "emostream-train corpus synth --out corpora/ood --clips 2100 --seed 0 --split ood": RENDERING,
    "emostream-train sft --config cold_start_paper --model StarJiaxing/HumanOmni-0.5B "
    "--manifest emer.jsonl --out runs/emer": f"{HUB}; {GPU}",
    "torchrun --nproc_per_node 4 -m training.cli sft --config cold-start.yaml --out runs/four": GPU,
    "torchrun --nproc_per_node 4 -m training.cli sft --config cold-start.yaml --out runs/sharded --fsdp": GPU,
    "OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m training.cli grpo --config grpo.yaml "
    "--out runs/two --ddp_backend gloo": "tests/training/grpo/test_distributed.py",
    "emostream-export build my-model --out engines-int8 --precision int8": "tests/export",
    "emostream-export bench engines": "half a minute; tests/export",
    "emostream-export build my-model --out engines-trt --target tensorrt --precision fp16": GPU,
    "python benchmarks/live.py --minutes 10": BENCHMARK,
    "python benchmarks/web.py": BENCHMARK,
    "python benchmarks/annotate.py --clips 4 --clip-s 30": BENCHMARK,
    "python benchmarks/live.py --minutes 2 --sources 8 --labels-only": BENCHMARK,
    "python benchmarks/soak.py --minutes 30": BENCHMARK,
    "python benchmarks/encoders.py --model tiny --device cpu": BENCHMARK,
    "python benchmarks/encoders.py --preset 0.5b --device cpu --audio-context-s 5": BENCHMARK,
    "python benchmarks/encoders.py --preset 0.5b --device cpu --audio-context-s 5 --dtype bfloat16 "
    "--only onnxruntime-int8": BENCHMARK,
    "python benchmarks/tensorrt_build.py --preset tiny --preset 0.5b": BENCHMARK,
    "python benchmarks/grpo.py --preset tiny --device cpu": BENCHMARK,
    "python benchmarks/model.py --preset tiny --preset 0.5b": BENCHMARK,
    "python benchmarks/model.py --preset tiny --preset 0.5b --dtype bf16 --device cuda": GPU,
    "python benchmarks/grpo.py --preset tiny --device cuda": GPU,
    "python benchmarks/grpo.py --preset 0.5b --device cuda --lora-rank 16 --checkpointing --autocast "
    "--prompts 8 --tokens 128": GPU,
}
"""Command -> what it takes that a test has not, and what covers it."""

SMALL = {
    "emostream-train corpus synth": ["--workers", "1"],
    "emostream-train eval": ["--limit", "4", "--max-new-tokens", "8"],
    "emostream-train faithful": [
        *("--clips", "2", "--max-new-tokens", "8", "--twins", "both", "--edits", "mute,louder"),
    ],
    "emostream-train sft": [
        *("--per_device_train_batch_size", "4", "--max_steps", "1", "--validation_limit", "2"),
        *("--limit", "4", "--max_new_tokens", "4"),
    ],
    "emostream-train grpo": [
        *("--per_device_train_batch_size", "16", "--max_completion_length", "12"),
        *("--max_steps", "1", "--model", "my-model", "--bf16", "false", "--dtype", "float32"),
        *("--manifest", "corpora/train/manifest.jsonl"),
    ],
    "emostream-train grpo --config grpo-twins": ["--manifest", "corpora/twins/manifest.jsonl"],
    "emostream-export verify": ["--windows", "2"],
    "emostream annotate": ["--jobs", "1", "--reasons", "none"],
    "emostream replay": ["--speed", "50", "--bind", LOCAL],
    "emostream run": ["--bind", LOCAL],
    "emostream run --source left=": ["--pace", "max"],
    "emostream run --source clip.mp4 --labels": ["--pace", "max"],
    "emostream run --model my-model --engines": ["--pace", "max"],
}
"""Beginning of a command -> what is put after it."""


def _every(language: str) -> list[Block]:
    names = [path.relative_to(ROOT).as_posix() for path in documents()]
    rank = {name: ORDER.index(name) if name in ORDER else len(ORDER) for name in names}
    return [
        block
        for name in sorted(names, key=lambda name: (rank[name], name))
        for block in blocks(ROOT / name)
        if block.language == language
    ]


COMMANDS: dict[str, str] = {}
"""Command -> where it stands first."""
for _block in _every("sh"):
    for _line, _command in commands(_block):
        COMMANDS.setdefault(_command, f"{_block.document}:{_line}")

SNIPPETS = _every("python")


def test_every_block_says_its_language() -> None:
    for document in documents():
        for block in blocks(document):
            where = f"{block.document}:{block.line}"
            assert block.language in LANGUAGES, f"{where}: {block.language or 'no'} language"
            if block.language == "text":
                program = re.match(
                    r"\s*(?:\$|emostream|make|pip|python|git|torchrun)\b", block.text
                )
                assert program is None, f"{where}: a command in a block that is not sh"


def test_nothing_is_excused_that_no_document_says() -> None:
    assert not set(NOT_RUN) - set(COMMANDS)


@pytest.mark.parametrize("command", NOT_RUN)
def test_what_is_not_run_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[0] == "torchrun":
        words = ["emostream-train", *words[words.index("training.cli") + 1 :]]
    program, *arguments = words
    if program in ("emostream", "emostream-train", "emostream-export"):
        parser = _parser(program)
        _, settings = parser.parse_known_args(arguments)
        assert not settings or arguments[0] in ("sft", "grpo"), settings
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        source = (ROOT / arguments[0]).read_text(encoding="utf-8")
        for flag in (word for word in arguments[1:] if word.startswith("--")):
            assert f'"{flag}"' in source, flag
    elif program == "cd":
        assert (ROOT / arguments[0]).is_dir()
    else:
        assert program in ("pip", "tensorboard")


def _parser(program: str) -> argparse.ArgumentParser:
    package = {
        "emostream": "stream.commands",
        "emostream-train": "training",
        "emostream-export": "export",
    }
    module = importlib.import_module(f"{package[program]}.cli")
    parser: argparse.ArgumentParser = module._parser()
    return parser


def test_options_in_the_text_exist() -> None:
    known = set()
    for program in ("emostream", "emostream-train", "emostream-export"):
        parsers = [_parser(program)]
        while parsers:
            for action in parsers.pop()._actions:
                known.update(action.option_strings)
                if isinstance(action.choices, dict):
                    parsers.extend(action.choices.values())
    for document in documents():
        text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`\n]+)`", text):
            if code.startswith(("emostream", "--")):
                for flag in re.findall(r"--[a-z][a-z-]+", code):
                    assert flag in known, f"{document.name}: {code}"


class Driver:
    """The process in which commands run (`tests/command_driver.py`), and what it has printed."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "driver.log"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
            "COLUMNS": "200",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(ROOT / "tests" / "command_driver.py")],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._begun = 0
        self._busy = False

    def start(self, request: dict[str, object]) -> None:
        """Begin one command; ends what an earlier test left running."""
        assert self.process.stdin is not None
        if self._busy:
            self.interrupt()
            self.finish(range(256))
        self._busy = True
        self._begun = self._log.stat().st_size
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    @property
    def printed(self) -> str:
        """What the command has printed so far."""
        return self._log.read_bytes()[self._begun :].decode(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """The first group of a pattern, once it is printed."""
        end_s = time.monotonic() + WAIT_S
        while (found := re.search(pattern, self.printed)) is None:
            assert time.monotonic() < end_s, f"no {pattern!r} in:\n{self.printed}"
            time.sleep(0.02)
        return found[1] if found.groups() else found[0]

    def finish(self, allowed: Sequence[int] = (0,)) -> None:
        """Wait for the exit code."""
        assert self.process.stdout is not None
        code = self.process.stdout.readline().strip()
        self._busy = False
        assert code.isdecimal(), f"the driver died:\n{self.printed}"
        assert int(code) in allowed, f"exit code {code}:\n{self.printed}"

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's working directory."""
    folder = tmp_path_factory.mktemp("reader")
    fill(folder, [b for language in ("yaml", "csv") for b in _every(language) if b.title])
    return folder


@pytest.fixture(scope="module")
def driver(folder: Path) -> Iterator[Driver]:
    driver = Driver(folder)
    try:
        driver.start(
            {
                "code": "from emostream import save_model\n"
                "from emostream.model.presets import from_preset\n"
                "for name in ('my-model', 'R1-Omni-0.5B'):\n"
                "    save_model(*from_preset('tiny'), name)\n"
            }
        )
        driver.finish()
        yield driver
    finally:
        driver.close()


@pytest.mark.parametrize(
    "command", [pytest.param(c, id=f"{at} {c}") for c, at in COMMANDS.items() if c not in NOT_RUN]
)
def test_command(command: str, driver: Driver, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    for beginning, more in SMALL.items():
        if command.startswith(beginning):
            arguments += more
    request = {"program": program, "arguments": arguments}
    if program not in ("emostream", "emostream-train", "emostream-export"):
        raise AssertionError(f"{command}: put it into NOT_RUN, or teach this test to run it")
    if command.startswith("emostream run"):
        _run(driver, request, folder)
    elif command.startswith(("emostream watch", "emostream record", "emostream bridge")):
        with publishing(folder, "--curve" in arguments) as endpoint:
            driver.start({**request, "arguments": [*arguments, "--connect", endpoint]})
            if arguments[0] == "bridge":
                driver.wait_for("bridging")
            if arguments[0] == "watch":
                driver.wait_for(r"cam0.*happy")
            elif arguments[0] == "record":
                recorded = folder / arguments[arguments.index("--out") + 1]
                _until(lambda: recorded.exists() and recorded.read_text().count("\n") > 30)
            driver.interrupt()
            driver.finish()
    else:
        driver.start(request)
        driver.finish((0, 1) if arguments[:1] == ["doctor"] else (0,))


def _run(driver: Driver, request: dict[str, object], folder: Path) -> None:
    """`emostream run` until its clip is over, or, where it has no end, until it has begun."""
    arguments = [str(a) for a in request["arguments"]]  # type: ignore[attr-defined]
    keys = folder / arguments[arguments.index("--curve") + 1] if "--curve" in arguments else None
    if "--ingest" in arguments:
        arguments += ["--ingest", LOCAL]
    endless = "--loop" in arguments or "--source" not in arguments
    driver.start({**request, "arguments": arguments})
    endpoint = driver.wait_for(r"publishing .* on (tcp://\S+)")
    with EmotionClient(endpoint, curve=keys) as client:
        label = stopped = False
        end_s = time.monotonic() + WAIT_S
        while "--source" in arguments and not (label if endless else stopped):
            try:
                event = client.recv(timeout_ms=1000)
            except ReceiveTimeout:
                assert time.monotonic() < end_s, driver.printed
                continue
            label = label or isinstance(event, Label)
            stopped = isinstance(event, Status) and event.state == "stopped"
        assert label or "--source" not in arguments, driver.printed
    if endless:
        driver.interrupt()
    driver.finish()


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{block.document}:{block.line}") for block in SNIPPETS]
)
def test_snippet(block: Block, driver: Driver, folder: Path) -> None:
    if "Client" not in block.text:
        driver.start({"code": block.text.replace("video=0", '"clip.mp4"')})  # no camera here
        driver.finish()
        return
    with publishing(folder, "curve=" in block.text) as endpoint:
        code = re.sub(r"tcp://[^\"]+", endpoint, block.text)
        assert code != block.text, "wanted an endpoint, which a test can replace"
        with subprocess.Popen(
            [sys.executable, "-P", "-u", "-c", code],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
            _, errors = process.communicate(timeout=WAIT_S)
        assert line.strip(), errors
        assert "Error" not in errors


@contextmanager
def publishing(folder: Path, secured: bool) -> Iterator[str]:
    """A live publisher of a source `cam0`, on a thread; gives its endpoint."""
    stop = threading.Event()
    keys = load_server_keys(folder / "keys") if secured else None
    with Publisher(LOCAL, curve=keys) as publisher:

        def publish() -> None:
            for number in itertools.count(8):
                publisher.publish(events.label(window_id=number))
                publisher.publish(events.reasoning(window_id=number))
                publisher.publish(events.status(timestamp_s=number * 0.5))
                if stop.wait(0.02):
                    return

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield publisher.endpoint
        finally:
            stop.set()
            thread.join()


def _until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)
