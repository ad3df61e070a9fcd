"""What an export directory says of itself: which checkpoint, which graphs, which versions."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from emostream.errors import EmostreamError

MANIFEST = "manifest.json"
VERSION = 1
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")


class ExportError(EmostreamError):
    """An export directory cannot be made, read or trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """`manifest.json` of an export directory.

    Attributes:
        checkpoint: The folder that was exported, as it was named.
        checkpoint_sha256: Of its config.json and safetensors files.
        target: `onnx`.
        precision: Of the arithmetic inside the graphs.
        opset: ONNX opset.
        versions: Of the packages that made it.
        command: That made it.
        graphs: By name: file, sha256, bytes, inputs and outputs.
    """

    checkpoint: str
    checkpoint_sha256: str
    target: str
    precision: str
    opset: int
    command: str
    graphs: dict[str, dict[str, Any]]
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write it into an export directory."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read it, and check that the graphs are the ones that it speaks of.

        Raises:
            ExportError: It is missing, malformed or of another version, or a graph is missing or altered.
        """
        rebuild = "Rebuild: emostream-export build CKPT --out " + str(folder)
        try:
            fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            manifest = cls(**fields)
        except (OSError, ValueError, TypeError) as error:
            raise ExportError(f"{folder / MANIFEST} cannot be read ({error}). {rebuild}") from error
        if manifest.version != VERSION:
            raise ExportError(
                f"{folder / MANIFEST} has version {manifest.version}, wanted {VERSION}. {rebuild}"
            )
        for name, graph in manifest.graphs.items():
            file = folder / graph["file"]
            if not file.is_file() or sha256([file]) != graph["sha256"]:
                raise ExportError(
                    f"{file} is missing or is not the {name} graph that was built. {rebuild}"
                )
        return manifest


def checkpoint_files(folder: Path) -> list[Path]:
    """The files that decide what a checkpoint computes."""
    return [folder / "config.json", *sorted(folder.glob("*.safetensors"))]


def sha256(files: list[Path]) -> str:
    """Digest of files, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of the packages that matter, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
