"""The `emostream-export` command. Nothing heavy is imported until a subcommand needs it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emostream.console import write_anything
from emostream.errors import EmostreamError
from emostream.shadowing import refuse_shadowed_packages
from emostream.startup import start_quickly
from export.manifest import Manifest

EXIT_FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; user errors are one line and exit code 2, as is a failed verification."""
    start_quickly()
    write_anything()
    options = _parser().parse_args(argv)
    try:
        refuse_shadowed_packages()
        return int(options.handler(options) or 0)
    except EmostreamError as error:
        print(f"emostream-export: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("emostream-export: interrupted; nothing is left half-made", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emostream-export",
        description="Compile a checkpoint's encoders, verified by the runtime that serves them.",
        epilog="The usual order: build, verify on clips of your own, bench, then "
        "`emostream run --model CKPT --engines D`.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    build = commands.add_parser(
        "build",
        help="export the encoders of a checkpoint",
        description="Export the encoders of a checkpoint and compare every graph with torch. Only what has changed "
        "since the last build into D is made anew.",
    )
    build.add_argument(
        "checkpoint", metavar="CKPT", help="checkpoint folder or hub id, or small or tiny"
    )
    build.add_argument("--out", type=Path, required=True, metavar="D", help="export directory")
    build.add_argument(
        "--target",
        choices=("onnx", "tensorrt"),
        default="onnx",
        help="onnx runs on CPU and CUDA by ONNX Runtime; tensorrt adds plans for the GPU of this host",
    )
    build.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        help="of the arithmetic; fp32 for onnx and fp16 for tensorrt unless named. int8 is for a CPU: half the time of "
        "fp32 and a quarter of the memory. fp16 and bf16 are for a GPU, and fall back aloud to bf16 and fp32 where a "
        "graph disagrees with torch",
    )
    build.add_argument(
        "--max-sources",
        type=int,
        default=8,
        metavar="N",
        help="sources that a plan must serve at once (tensorrt)",
    )
    build.add_argument(
        "--version-compatible",
        action="store_true",
        help="plans run on later releases of TensorRT 11 too, somewhat slower",
    )
    build.add_argument(
        "--hardware",
        choices=("none", "same_compute_capability", "ampere_plus"),
        default="none",
        help="other GPUs that plans run on, somewhat slower",
    )
    _add_device(build)
    build.set_defaults(handler=_build)
    verify = commands.add_parser(
        "verify",
        help="compare an export directory with torch",
        description="Compare every graph with torch at its least, usual and largest shapes, the streaming encoder on "
        "them with whole windows, and the labels on real clips. Writes verify.json and verify.md into D.",
    )
    verify.add_argument("directory", type=Path, metavar="D", help="export directory")
    verify.add_argument(
        "--clips", type=Path, metavar="PATH", help="media file, folder or manifest; the demo's clip"
    )
    verify.add_argument(
        "--windows", type=int, default=64, metavar="N", help="windows of the clips at most"
    )
    verify.add_argument("--backend", choices=("onnxruntime", "tensorrt"), help="what runs them")
    _add_device(verify)
    verify.add_argument("--json", action="store_true", help="print verify.json and nothing else")
    verify.set_defaults(handler=_verify)
    bench = commands.add_parser(
        "bench",
        help="latency and memory of the engines beside torch",
        description="p50 and p95 latency and memory of every graph, by torch and by each backend that D and this host "
        "have, at each batch, beside the least time that the arithmetic and the weights need.",
    )
    bench.add_argument("directory", type=Path, metavar="D", help="export directory")
    _add_device(bench)
    bench.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        metavar="S",
        help="measure each case so long, and three times at least (default: 1)",
    )
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")
    bench.set_defaults(handler=_bench)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="cpu|cuda", help="where engines run; a GPU that they can use, if any"
    )


def _build(options: argparse.Namespace) -> None:
    from export.build import BuildOptions, build
    from export.environment import environment_rows

    _table("environment", environment_rows())
    build(
        options.checkpoint,
        options.out,
        say=_say,
        options=BuildOptions(
            target=options.target,
            precision=options.precision,
            device=options.device,
            max_sources=options.max_sources,
            version_compatible=options.version_compatible,
            hardware=options.hardware,
        ),
    )
    print(f"serve it: emostream run --model {options.checkpoint} --engines {options.out}")


def _verify(options: argparse.Namespace) -> int:
    Manifest.peek(options.directory)  # before torch is imported, which takes seconds
    from export.verify import verify

    result = verify(
        options.directory,
        say=_quiet if options.json else _say,
        device=options.device,
        backend=options.backend,
        clips=options.clips,
        windows=options.windows,
    )
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{'PASS' if result['passed'] else 'FAIL'}: {options.directory / 'verify.md'}")
    return 0 if result["passed"] else EXIT_FAILED


def _bench(options: argparse.Namespace) -> None:
    Manifest.peek(options.directory)
    from export.bench import bench, table

    result = bench(
        options.directory,
        device=options.device,
        seconds=options.seconds,
        say=_quiet if options.json else _say,
    )
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _print(table(result))


def _table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    _print(table)


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _say(text: str) -> None:
    print(text, flush=True)


def _quiet(text: str) -> None:
    del text


if __name__ == "__main__":
    sys.exit(main())
