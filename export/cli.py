"""The `emostream-export` command. Nothing heavy is imported until a subcommand needs it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emostream.errors import EmostreamError

EXIT_FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; user errors are one line and exit code 2."""
    options = _parser().parse_args(argv)
    try:
        options.handler(options)
    except EmostreamError as error:
        print(f"emostream-export: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("emostream-export: interrupted; nothing is left half-made", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emostream-export",
        description="Compile a checkpoint's encoders to ONNX, verified by the runtime that serves them.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    build = commands.add_parser("build", help="export the encoders of a checkpoint")
    build.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder or hub id")
    build.add_argument("--out", type=Path, required=True, metavar="D")
    build.set_defaults(handler=_build)
    verify = commands.add_parser("verify", help="compare exported graphs with torch")
    verify.add_argument("directory", type=Path, metavar="D")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(handler=_verify)
    return parser


def _build(options: argparse.Namespace) -> None:
    from export.build import build

    build(options.checkpoint, options.out, say=_say)
    print(f"serve it: emostream run --model {options.checkpoint} --engines {options.out}")


def _verify(options: argparse.Namespace) -> None:
    from export.verify import verify

    result = verify(options.directory, say=_quiet if options.json else _say)
    if options.json:
        print(json.dumps(result, indent=1))


def _say(text: str) -> None:
    print(text, flush=True)


def _quiet(text: str) -> None:
    del text


if __name__ == "__main__":
    sys.exit(main())
