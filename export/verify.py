"""`emostream-export verify`: an export directory against torch, by the runtime that serves it: noise and clips."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from emostream.checkpoint.resolve import find_checkpoint
from emostream.model.load import load_model
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from export.clips import agreement, stretches
from export.environment import engine_device
from export.errors import ExportError
from export.manifest import Manifest, sha256, write_atomically
from export.onnx.graphs import GRAPHS
from export.onnx.parity import as_line, compare, compare_streaming
from export.onnx.precision import TOLERANCES, loosest
from export.runtime import load_encoders

REPORT = "verify.json"
WINDOWS = 64


def verify(
    folder: Path,
    *,
    say: Callable[[str], None],
    device: str | None = None,
    backend: str | None = None,
    clips: Path | None = None,
    windows: int = WINDOWS,
) -> dict[str, Any]:
    """Compare graphs, streaming and labels with torch; writes `verify.json` and `verify.md`.

    Args:
        folder: Export directory.
        say: Told of each comparison.
        device: Where engines and torch run; None is the GPU if there is one that the runtime can use.
        backend: What runs them; None is what the manifest was built for.
        clips: Media file, folder or manifest for the labels; None for the demo's clip.
        windows: Windows of the clips at most.

    Returns:
        What `verify.json` holds; `passed` is the verdict.

    Raises:
        ExportError: The directory is not whole, or the checkpoint is not the one that was exported.
    """
    manifest = Manifest.read(folder)
    where = engine_device(device, manifest.target, manifest.precision)
    model, processor = load_exported(manifest, folder, where)
    encoders = load_encoders(folder, where, torch.float32, backend)
    description = encoders.description
    say(f"engines: {description}")
    rows = verify_graphs(model, processor, encoders, manifest, say)
    precision = loosest(manifest.precisions)
    found = agreement(
        model, processor, encoders, stretches(clips, windows), TOLERANCES[precision], say
    )
    found = {"clips": str(clips or "the demo's clip"), "precision": precision, **found}
    say(_agreement_line(found))
    result = {
        "passed": all(row["passed"] for row in rows) and found["passed"],
        "engines": description,
        "checkpoint": manifest.checkpoint,
        "tolerances": {name: TOLERANCES[name].as_dict() for name in manifest.precisions},
        "rows": rows,
        "labels": found,
    }
    write_report(folder, result)
    return result


def verify_graphs(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    encoders: Any,
    manifest: Manifest,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Every graph by itself, and the streaming encoder on all of them."""
    rows = []
    for graph in GRAPHS:
        rows += compare(graph, model, encoders, manifest.graphs[graph.name]["precision"])
    rows += compare_streaming(model, processor, encoders, list(manifest.graphs.values()))
    for row in rows:
        say(as_line(row))
    return rows


def load_exported(
    manifest: Manifest,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """The checkpoint of an export directory.

    Raises:
        ExportError: It has changed since.
    """
    if sha256(find_checkpoint(manifest.checkpoint).files()) != manifest.checkpoint_sha256:
        raise ExportError(
            f"{folder} was built from another state of {manifest.checkpoint}. Rebuild: emostream-export build "
            f"{manifest.checkpoint} --out {folder}"
        )
    return load_model(manifest.checkpoint, device, dtype)


def write_report(folder: Path, result: dict[str, Any]) -> None:
    """`verify.json` and the same for people, `verify.md`."""
    write_atomically(folder / REPORT, json.dumps(result, indent=1) + "\n")
    write_atomically(folder / "verify.md", _as_markdown(result))


def _agreement_line(found: dict[str, Any]) -> str:
    allowed = TOLERANCES[found["precision"]]
    return (
        f"{'PASS' if found['passed'] else 'FAIL'}  labels on {found['windows']} windows of {found['clips']}: agreement "
        f"{found['agreement']:.1%} (≥ {allowed.agreement:.0%}), mean KL {found['kl_mean']:.2e} (≤ {allowed.kl:g}), "
        f"largest {found['kl_max']:.2e}"
    )


def _as_markdown(result: dict[str, Any]) -> str:
    lines = [
        f"# {'PASS' if result['passed'] else 'FAIL'}: {result['checkpoint']}",
        "",
        f"Engines: {result['engines']}; against torch in float32.",
        "",
        "| graph | output | shapes | precision | max abs | relative L2 | cosine | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        shapes = ", ".join("×".join(map(str, shape)) for shape in row["inputs"].values())
        numbers = (
            f"{row['max_abs']:.2e} | {row['relative_l2']:.2e} | {row['cosine']:.7f}"
            if row["finite"]
            else "not finite | – | –"
        )
        verdict = "pass" if row["passed"] else "**fail**"
        cells = (row["graph"], row["output"], f"{row['case']}: {shapes}", row["precision"])
        lines.append(f"| {' | '.join(cells)} | {numbers} | {verdict} |")
    lines += [
        "",
        "| precision | relative L2 ≤ | cosine ≥ | agreement ≥ | mean KL ≤ |",
        "|---|---|---|---|---|",
    ]
    for name, allowed in result["tolerances"].items():
        limits = (allowed[key] for key in ("relative_l2", "cosine", "agreement", "kl"))
        lines.append(f"| {name} | {' | '.join(f'{limit:g}' for limit in limits)} |")
    if "labels" in result:
        lines += ["", _agreement_line(result["labels"])]
    return "\n".join(lines) + "\n"
