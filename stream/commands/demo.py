"""`emostream demo`: the pipeline of `emostream run` on a bundled clip, in a process of its own, and a view of it."""

import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from importlib.resources import as_file, files
from typing import IO

from emostream.errors import EmostreamError
from stream.pubsub.client import EmotionClient
from stream.view import watch

SOURCE = "demo"
_PUBLISHING = re.compile(r"publishing .* on (tcp://\S+)")


class DemoError(EmostreamError):
    """The demo's pipeline did not start or failed."""


def demo(*, web: bool = False) -> int:
    """Run the pipeline on the bundled clip and show it until the clip is over; returns the exit code.

    Args:
        web: In a browser, for as long as the user likes, instead of the terminal.

    Raises:
        DemoError: The pipeline failed; the message is its own.
    """
    with as_file(files("stream").joinpath("assets", "demo.mp4")) as clip:
        command = [sys.executable, "-P", "-m", "stream.commands.cli", "run"]
        command += ["--source", f"{SOURCE}={clip}", "--bind", "tcp://127.0.0.1:*"]
        command += ["--loop"] if web else []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pipeline:
            try:
                assert pipeline.stderr is not None
                said: list[str] = []
                endpoint = _endpoint(pipeline.stderr, said)
                rest = threading.Thread(target=said.extend, args=(pipeline.stderr,), daemon=True)
                rest.start()
                over = _show_page(endpoint, pipeline) if web else _show(endpoint, pipeline)
                interrupted = not over and pipeline.poll() is None
                if interrupted:
                    pipeline.terminate()  # Ctrl-C in a terminal reaches it too, SIGTERM does not
                code = pipeline.wait()
                rest.join()
            finally:
                pipeline.terminate()
    if code < 0 and not interrupted:
        raise DemoError(f"the pipeline was ended by {signal.Signals(-code).name}")
    if code > 0:
        raise DemoError("".join(said[-1:]).strip() or f"the pipeline ended with exit code {code}")
    for line in said:
        print(line, end="", file=sys.stderr)
    return 0


def _show(endpoint: str, pipeline: subprocess.Popen[str]) -> bool:
    """In the terminal, until the clip is over; whether it is."""
    with EmotionClient(endpoint) as client:
        seen = watch(client, until=lambda state: state.over or pipeline.poll() is not None)
    return seen.over


def _show_page(endpoint: str, pipeline: subprocess.Popen[str]) -> bool:
    """In a browser, until the user has seen enough or the pipeline fails."""
    from stream.web.config import WebConfig
    from stream.web.serve import serving

    with serving(WebConfig(connect=endpoint)) as link, suppress(KeyboardInterrupt):
        print(f"the demo is shown on {link}", file=sys.stderr, flush=True)
        pipeline.wait()
    return False


def _endpoint(lines: IO[str], said: list[str]) -> str:
    """Where the pipeline publishes, which it says before it does anything slow."""
    for line in lines:
        if found := _PUBLISHING.search(line):
            return found[1]
        said.append(line)
    raise DemoError("".join(said[-1:]).strip() or "the pipeline ended before it published anything")
