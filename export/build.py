"""`emostream-export build`: a checkpoint's encoders to graphs and engines, verified before they are put in place."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emostream.checkpoint.resolve import find_checkpoint
from emostream.devices import parse_device
from emostream.inference.encoders import Encoders
from emostream.model.load import load_model
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from emostream.model.save import put_in_place
from export.environment import engine_device
from export.errors import ExportError
from export.manifest import MANIFEST, Manifest, graph_files, sha256
from export.onnx.graphs import GRAPHS, OPSET, Graph
from export.onnx.parity import as_line, compare, compare_streaming, worst
from export.onnx.precision import DTYPES, TOLERANCES, Hardware, Precision, Target, fallbacks
from export.onnx.write import export_graph, graph_key
from export.runtime import load_encoders
from export.staging import kept_rows, link, previous
from export.verify import REPORT, write_report

if TYPE_CHECKING:
    from export.tensorrt.probe import Host

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """What to build.

    Attributes:
        target: `onnx`, or `tensorrt` for plans beside the graphs.
        precision: Of the arithmetic; None is fp32 for `onnx` and fp16 for `tensorrt`.
        device: Where parity is checked; None is the GPU if there is one that the runtime can use.
        max_sources: Sources that a TensorRT plan must be able to serve at once.
        version_compatible: A plan runs on later releases of TensorRT too.
        hardware: Other GPUs that a plan runs on.

    Raises:
        ExportError: The target cannot have this precision.
    """

    target: Target = "onnx"
    precision: Precision | None = None
    device: str | None = None
    max_sources: int = 8
    version_compatible: bool = False
    hardware: Hardware = "none"

    def __post_init__(self) -> None:
        if self.target == "tensorrt" and self.precision == "int8":
            raise ExportError(
                "build: int8 graphs are for ONNX Runtime on the CPU; TensorRT wants fp16, bf16 or fp32. Use "
                "--precision fp16, or --target onnx."
            )
        if self.target == "onnx" and self.precision == "bf16":
            raise ExportError(
                "build: ONNX Runtime runs no bf16 convolutions at opset 20. Use --precision fp16 on a GPU, int8 or "
                "fp32 on a CPU, or --target tensorrt."
            )
        if self.max_sources < 1:
            raise ExportError(f"build: --max-sources is {self.max_sources}; wanted 1 or more.")

    @property
    def asked(self) -> Precision:
        """The precision, by the target's own if none was named."""
        return self.precision or ("fp16" if self.target == "tensorrt" else "fp32")


@dataclass(slots=True)
class _Build:
    """An export directory in the making."""

    model: EmostreamForCausalLM
    processor: EmostreamProcessor
    staging: Path
    options: BuildOptions
    say: Say
    host: "Host | None"
    device: torch.device
    begun_s: float = field(default_factory=time.perf_counter)
    graphs: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def tell(self, text: str) -> None:
        """A line with the time since the beginning."""
        self.say(f"[{time.perf_counter() - self.begun_s:6.1f} s] {text}")


def build(checkpoint: str, out: Path, *, say: Say, options: BuildOptions | None = None) -> Manifest:
    """Export a checkpoint; `out` appears, or is replaced, only when every graph has passed its comparison with torch.

    What an earlier build left in `out` is kept where neither weights nor versions nor options have changed.

    Args:
        checkpoint: Folder or hub id, or `small` or `tiny`.
        out: Export directory.
        say: Told of each step.
        options: What to build.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        ExportError: A graph cannot be exported, disagrees with torch, or cannot be written.
    """
    options = options or BuildOptions()
    if out.exists() and not (out / MANIFEST).is_file():
        raise ExportError(f"{out} exists and is no export directory. Choose another folder.")
    host = None
    if options.target == "tensorrt":
        from export.tensorrt.probe import probe

        host = probe(parse_device(options.device or "cuda").index or 0)
    device = engine_device(options.device, options.target, options.asked)
    checkpoint_sha256 = sha256(find_checkpoint(checkpoint).files())
    model, processor = load_model(checkpoint)
    staging = out.parent / f".{out.name}.partial"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)  # of a build that was killed
        staging.mkdir()
        work = _Build(model, processor, staging, options, say, host, device)
        before = previous(out)
        todo = _reuse(work, out, before)
        _refuse_full_disk(work, out, todo)

        def manifest() -> Manifest:
            return Manifest(
                checkpoint=str(checkpoint),
                checkpoint_sha256=checkpoint_sha256,
                target=options.target,
                precision=options.asked,
                opset=OPSET,
                command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                graphs=work.graphs,
                parity=worst(rows),
            )

        rows = kept_rows(out, before, set(work.graphs))
        rows = _make(work, todo, rows, manifest)
        done = manifest()
        done.write(staging)
        put_in_place(staging, out)
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error}. Nothing was changed; free the space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return done


def _make(
    work: _Build,
    todo: dict[str, tuple[Precision, ...]],
    rows: list[dict[str, Any]],
    manifest: Callable[[], Manifest],
) -> list[dict[str, Any]]:
    """Build what is to do, compare it, and build anew in the next precision what disagrees."""
    asked, target = work.options.asked, work.options.target
    built_any = False
    while True:
        work.model.to("cpu")
        for name, precisions in todo.items():
            _export(work, _graph(name), precisions[0])
        if work.host is not None:
            # A plan may be out of date though its graph is not: another TensorRT, another GPU.
            for name in _compile(work):
                chain = fallbacks(asked, target)
                precision = work.graphs[name]["precision"]
                todo.setdefault(name, chain[chain.index(precision) :])
        if not todo:
            break
        built_any = True
        manifest().write(work.staging)
        encoders = load_encoders(work.staging, work.device, torch.float32)
        description = encoders.description
        work.tell(f"parity with torch, by {description}")
        work.model.to(work.device)
        failed = {}
        for name, precisions in todo.items():
            found = compare(_graph(name), work.model, encoders, precisions[0])
            for row in found:
                work.say("  " + as_line(row))
            rows = [row for row in rows if row["graph"] != name]
            if all(row["passed"] for row in found):
                rows += found
            else:
                failed[name] = _next(work, name, precisions, found)
        if not failed:
            rows = [row for row in rows if row["graph"] != "streaming"]
            rows += _streaming(work, encoders)
        todo = failed
        del encoders
        if not failed:
            break
    if built_any:
        _report(work, description, rows, manifest())
    else:
        work.tell("nothing has changed; all is kept")
    return rows


def _streaming(work: _Build, encoders: Encoders) -> list[dict[str, Any]]:
    """The streaming encoder on the new graphs.

    Raises:
        ExportError: It disagrees with whole windows, though every graph by itself agrees.
    """
    rows = compare_streaming(work.model, work.processor, encoders, list(work.graphs.values()))
    for row in rows:
        work.say("  " + as_line(row))
    if bad := next((row for row in rows if not row["passed"]), None):
        raise ExportError(f"build: {as_line(bad)}. Please report this.")
    return rows


def _report(work: _Build, description: str, rows: list[dict[str, Any]], manifest: Manifest) -> None:
    write_report(
        work.staging,
        {
            "passed": True,
            "engines": description,
            "checkpoint": manifest.checkpoint,
            "tolerances": {name: TOLERANCES[name].as_dict() for name in manifest.precisions},
            "rows": rows,
        },
    )


def _next(
    work: _Build, name: str, precisions: tuple[Precision, ...], rows: list[dict[str, Any]]
) -> tuple[Precision, ...]:
    """What to fall back to, said aloud."""
    bad = next(row for row in rows if not row["passed"])
    if len(precisions) == 1:
        raise ExportError(
            f"{name} differs from torch in {precisions[0]}: {as_line(bad)}."
            + (" Use --precision fp32." if precisions[0] != "fp32" else " Please report this.")
        )
    work.tell(f"{name}: {precisions[0]} fails, falling back to {precisions[1]}")
    return precisions[1:]


def _export(work: _Build, graph: Graph, precision: Precision) -> None:
    work.tell(f"{graph.name}: exporting in {precision}")
    for part in work.staging.glob(f"{graph.name}.onnx*"):
        part.unlink()
    entry = export_graph(graph, work.model, precision, work.staging, work.keys[graph.name])
    work.graphs[graph.name] = entry
    work.tell(
        f"{graph.name}: {entry['nodes']} nodes, opset {OPSET}, {precision}, {entry['bytes'] / 1e6:.1f} MB, sha256 "
        f"{entry['sha256'][:12]}, {entry['seconds']:.1f} s"
    )


def _compile(work: _Build) -> list[str]:
    """Plans of all graphs; returns the names of those that were built and not kept."""
    from export.tensorrt.builder import BuilderOptions, build_engine
    from export.tensorrt.profiles import profiles_for

    assert work.host is not None
    fresh = []
    for name, entry in work.graphs.items():
        report = build_engine(
            work.staging / entry["file"],
            work.staging / f"{name}.plan",
            profiles=profiles_for(_graph(name), work.model.config, work.options.max_sources),
            precision=entry["precision"],
            host=work.host,
            say=work.tell,
            options=BuilderOptions(
                version_compatible=work.options.version_compatible, hardware=work.options.hardware
            ),
        )
        work.graphs[name] = {**entry, "plan": report.as_dict()}
        if not report.reused:
            fresh.append(name)
    return fresh


def _key(work: _Build, graph: Graph) -> str:
    """Of what was asked for: a graph that had to fall back is not tried again while nothing has changed."""
    return f"{work.options.target}-{graph_key(graph, work.model, work.options.asked)}"


def _graph(name: str) -> Graph:
    return next(graph for graph in GRAPHS if graph.name == name)


def _reuse(work: _Build, out: Path, before: Manifest | None) -> dict[str, tuple[Precision, ...]]:
    """Take over the graphs that would come out the same; returns the others, with the precisions to try."""
    todo = {}
    for graph in GRAPHS:
        entry = before.graphs.get(graph.name) if before is not None else None
        work.keys[graph.name] = _key(work, graph)
        if entry is None or entry["key"] != work.keys[graph.name]:
            todo[graph.name] = fallbacks(work.options.asked, work.options.target)
            continue
        for file in (*graph_files(out, entry), *out.glob(f"{graph.name}.plan*")):
            link(file, work.staging / file.name)
        work.graphs[graph.name] = entry
        work.tell(f"{graph.name}: unchanged, kept")
    for name in (REPORT, "verify.md"):  # replaced when anything is compared anew
        if (out / name).is_file():
            link(out / name, work.staging / name)
    return todo


def _refuse_full_disk(work: _Build, out: Path, todo: Mapping[str, Any]) -> None:
    """Say that the disk is too small before minutes are spent, not after."""
    needed = 0
    for name in todo:
        floats = sum(p.numel() for p in _graph(name).module(work.model).parameters())
        bytes_each = 5 if work.options.asked == "int8" else DTYPES[work.options.asked].itemsize
        needed += floats * bytes_each * (2 if work.options.target == "tensorrt" else 1)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise ExportError(
            f"build: {out.parent} has {free / 1e9:.2f} GB free, the export needs about {needed / 1e9:.2f} GB. Free the "
            "space or choose another folder."
        )
