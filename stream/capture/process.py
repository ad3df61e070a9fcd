"""What every capture process's `main` shares: arguments, the link, the tie to its parent, exit codes.

A capture module, in full::

    def main(argv: Sequence[str] | None = None) -> int:
        parser = capture_parser("stream.capture.camera", "captures one camera")
        parser.add_argument("--index", type=int, default=0)
        args = parser.parse_args(argv)
        return run_capture(args, lambda link: capture(link, args.index), modalities=("video",))

    if __name__ == "__main__":
        sys.exit(main())
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from emostream.errors import EmostreamError, LinkError
from stream.capture import lifeline
from stream.sockets.local_endpoint import remove_endpoint_directory
from stream.transport.protocol import LATENESS_S, Clock, IngestAddress, Modality
from stream.transport.sender import CaptureLink

EXIT_OK = 0  # told to stop, or the file is over: not to be restarted
EXIT_RETRY = 1
EXIT_USER_ERROR = 2  # a restart would fail the same way; the last line of stderr says why
READY_WITHIN_S = 60.0  # the inference process may be loading a model
ARGUMENTS_VARIABLE = "EMOSTREAM_CAPTURE_ARGUMENTS"


def private_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Arguments, which may hold a password, as an environment: command lines are seen by every user of the host."""
    return {ARGUMENTS_VARIABLE: json.dumps(list(arguments))}


class CaptureParser(argparse.ArgumentParser):
    """Parses the command line and, once, the `private_arguments` behind it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of its base."""
        private = json.loads(os.environ.pop(ARGUMENTS_VARIABLE, "[]"))
        public = sys.argv[1:] if args is None else args
        return super().parse_known_args([*public, *private], namespace)


def capture_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Parser with the arguments of every capture process; secrets come through the environment instead."""
    parser = CaptureParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--endpoint", required=True, help="ingest endpoint, ipc:// or tcp://")
    parser.add_argument("--source", required=True, help="source name that the data belongs to")
    return parser


def run_capture(
    args: argparse.Namespace,
    capture: Callable[[CaptureLink], None],
    *,
    modalities: tuple[Modality, ...],
    clock: Clock = "host",
    lossless: bool = False,
    lateness_s: float = LATENESS_S,
) -> int:
    """Run `capture` with a link that is ready, until it returns; returns the exit code.

    `capture` shall return soon after `link.stopped` becomes true: that happens when the inference process or the parent
    says so, on SIGTERM, and when the parent is gone. Ctrl-C is the parent's business.
    """
    try:
        address = IngestAddress.from_environment(args.endpoint)
        link = CaptureLink(
            address,
            source=args.source,
            modalities=modalities,
            clock=clock,
            lossless=lossless,
            lateness_s=lateness_s,
        )
    except EmostreamError as error:
        print(error, file=sys.stderr)  # noqa: T201  the parent reads it
        return EXIT_USER_ERROR
    try:
        with link:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: link.stop("SIGTERM"))

            def orphaned() -> None:
                remove_endpoint_directory(address.endpoint)
                link.stop("the parent process is gone")

            lifeline.attach(on_quit=link.stop, on_orphaned=orphaned)
            link.wait_ready(READY_WITHIN_S)
            capture(link)
    except LinkError as error:
        if link.stopped and not link.refused:
            return EXIT_OK
        print(error, file=sys.stderr)  # noqa: T201  the parent reads it
        return EXIT_USER_ERROR if link.refused else EXIT_RETRY
    except EmostreamError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return EXIT_USER_ERROR
    return EXIT_OK
