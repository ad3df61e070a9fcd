"""Runs commands of this project one after the other in one process, so that torch is imported once.

A request is a JSON line on stdin, `{"program": "emostream", "arguments": […]}` or `{"code": "…"}`; the answer is a line
on stdout with the exit code. What the commands print goes to stderr. Ctrl-C ends the command, never the driver.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

import numpy as np

ENTRY_POINTS = {
    "emostream": "stream.commands.cli",
    "emostream-train": "training.cli",
    "emostream-export": "export.cli",
}


def answer(request: dict[str, Any]) -> int:
    """Run one command or piece of code; returns the exit code."""
    try:
        if "code" in request:
            frames = np.zeros((8, 48, 64, 3), np.uint8)
            exec(request["code"], {"frames": frames, "audio": np.zeros(32_000, np.float32)})
            return 0
        main = importlib.import_module(ENTRY_POINTS[request["program"]]).main
        return int(main(request["arguments"]) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def main() -> None:
    """Answer until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = answer(json.loads(line))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        replies.write(f"{code}\n")
        replies.flush()


if __name__ == "__main__":
    main()
