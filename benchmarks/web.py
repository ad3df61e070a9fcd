"""What the page's server costs beside pages that watch: CPU of `emostream web`, by how many are open.

    python benchmarks/web.py

Runs `emostream run` on the demo clip, looped, and `emostream web` beside it, in processes of their own, and opens
WebSockets as pages do, pictures included.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from provenance import write_result
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CLIP = Path(__file__).resolve().parent.parent / "stream" / "assets" / "demo.mp4"
WATCHERS = (0, 1, 5)
COMMAND = (sys.executable, "-P", "-m", "stream.commands.cli")


def start(stack: ExitStack, said: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A command, and what it says behind `said`."""
    process = stack.enter_context(
        subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    )
    stack.callback(process.terminate)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(said, line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1]
    raise SystemExit(f"{arguments}: ended without saying {said}")


def watch(link: str, stack: ExitStack) -> None:
    """A page that shows the clip's picture and reads all it is sent."""
    host = link.removeprefix("http://").strip("/")
    socket = stack.enter_context(
        connect(f"ws://{host}/events", origin=link.rstrip("/"), proxy=None)
    )
    socket.send(json.dumps({"pictures": ["demo"]}))

    def read() -> None:
        with suppress(ConnectionClosed):
            for _ in socket:
                pass

    threading.Thread(target=read, daemon=True).start()


def measure(seconds: float) -> dict[str, Any]:
    """CPU of the server, in percent of a core, and its memory, by number of pages."""
    with ExitStack() as stack:
        _, endpoint = start(
            stack, r"publishing .* on (\S+)", "run", "--source", f"demo={CLIP}", "--loop",
            "--model", "tiny", "--bind", "tcp://127.0.0.1:*",
        )  # fmt: skip
        server, link = start(stack, r"shown on (\S+)", "web", "--connect", endpoint, "--port", "0")
        usage, rows = psutil.Process(server.pid), []
        time.sleep(30)  # until the model is warm
        for watchers in WATCHERS:
            with ExitStack() as pages:
                for _ in range(watchers):
                    watch(link, pages)
                usage.cpu_percent()
                time.sleep(seconds)
                cpu, rss_mb = usage.cpu_percent(), usage.memory_info().rss / 1e6
                rows.append({"pages": watchers, "cpu_percent": cpu, "rss_mb": rss_mb})
        return {"seconds": seconds, "rows": rows}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="of each number of pages")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = measure(options.seconds)
    for row in result["rows"]:
        print(f"{row['pages']} pages: {row['cpu_percent']:.1f} % of a core, {row['rss_mb']:.0f} MB")
    write_result("web", result, options.out)


if __name__ == "__main__":
    main()
