"""The pictures of the documents, from live runs on the demo clip: the terminal view, the timeline and the page.

python docs/pictures.py [--model tiny] [--recording F.jsonl]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stream.pubsub.client import EmotionClient
from stream.pubsub.messages import Event, Label, Status
from stream.pubsub.recording import Recorder, read
from stream.view import snapshot
from stream.view.plot import plot

OUT = Path(__file__).with_name("pictures")
CLIP = Path(__file__).resolve().parent.parent / "stream" / "assets" / "demo.mp4"
SOURCE = "demo"
_DPI = 150


def record(model: str, path: Path) -> None:
    """Run the pipeline on the demo clip as users do and record all that it publishes."""
    command = [sys.executable, "-P", "-m", "stream.commands.cli", "run", "--model", model]
    command += ["--source", f"{SOURCE}={CLIP}", "--bind", "tcp://127.0.0.1:*"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pipeline:
        assert pipeline.stderr is not None
        said = next(line for line in pipeline.stderr if line.startswith("publishing"))
        with EmotionClient(said.rsplit(" ", 1)[1].strip()) as client, Recorder(path) as recorder:
            for event in client:
                recorder.write(event)
                if isinstance(event, Status) and event.state == "stopped":
                    break


def photograph(model: str, path: Path) -> None:
    """The page in Debian's chromium, once reasons have come; as on a desk, and beside it as on a phone."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-P", "-m", "stream.commands.cli", "run", "--model", model, "--loop"]
    command += ["--source", f"{SOURCE}={CLIP}", "--bind", "tcp://127.0.0.1:*", "--web", "0"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pipeline,
        sync_playwright() as playwright,
    ):
        assert pipeline.stderr is not None
        said = next(line for line in pipeline.stderr if line.startswith("page on"))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            for name, size, scheme in (
                ("web", (1100, 900), "light"),
                ("web-phone", (390, 844), "dark"),
            ):
                width, height = size
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                page.goto(said.split()[-1])
                page.wait_for_selector(".picture:not([hidden])", timeout=120_000)
                page.get_by_text("Answer: ").wait_for(timeout=120_000)
                page.screenshot(path=path / f"{name}.png", full_page=True)
                page.close()
        finally:
            browser.close()
            pipeline.terminate()


def before_the_end(events: list[Event]) -> list[Event]:
    """What had come when the last label had: the view as it looks while live."""
    last = max(n for n, event in enumerate(events) if isinstance(event, Label))
    return events[: last + 1]


def main() -> None:
    """Write watch.svg, timeline.png, web.png and web-phone.png."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--recording", type=Path, help="draw this one instead of a new run")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        recording = options.recording or Path(folder) / "demo.jsonl"
        if options.recording is None:
            record(options.model, recording)
        snapshot(before_the_end(list(read(recording))), OUT / "watch.svg")
        plot(recording, OUT / "timeline.png", dpi=_DPI)
    photograph(options.model, OUT)
    for path in sorted(OUT.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
