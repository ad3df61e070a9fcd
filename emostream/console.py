"""Writing to consoles of any encoding."""

import io
import sys


def write_anything() -> None:
    """Let stdout and stderr replace what their encoding lacks: with cp1252 or ASCII an arrow is `?`, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
