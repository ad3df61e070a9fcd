"""What an export directory says of itself: which checkpoint, which graphs, built with what, and how far from torch."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from export.environment import installed_versions, machine
from export.errors import ExportError

MANIFEST = "manifest.json"
VERSION = 2
BACKENDS = {"onnx": "onnxruntime", "tensorrt": "tensorrt"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """`manifest.json` of an export directory.

    Attributes:
        checkpoint: The checkpoint that was exported, as it was named.
        checkpoint_sha256: Of its configurations and weights, its towers' included.
        target: `onnx` or `tensorrt`; with the latter there are plans beside the graphs.
        precision: That was asked for; each graph says its own.
        opset: ONNX opset.
        command: That made it.
        graphs: By name: file, sha256, bytes, key (of weights, code and versions), precision, nodes, weights by dtype,
            inputs and outputs, shapes, seconds, and with `tensorrt` the plan.
        parity: By graph, the worst of `verify`'s comparisons with torch.
        versions: Of the packages that made it.
        machine: That made it: CPU, GPU, driver.
    """

    checkpoint: str
    checkpoint_sha256: str
    target: str
    precision: str
    opset: int
    command: str
    graphs: dict[str, dict[str, Any]]
    parity: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=installed_versions)
    machine: dict[str, Any] = field(default_factory=machine)
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write it into an export directory, in one step."""
        write_atomically(folder / MANIFEST, json.dumps(asdict(self), indent=1) + "\n")

    @property
    def backend(self) -> str:
        """What runs it unless the user chooses."""
        return BACKENDS[self.target]

    @property
    def precisions(self) -> list[str]:
        """Of the graphs, each once."""
        return list(dict.fromkeys(graph["precision"] for graph in self.graphs.values()))

    @classmethod
    def peek(cls, folder: Path) -> "Manifest":
        """Read it and believe it: the graphs are not looked at.

        Raises:
            ExportError: It is missing, malformed or of another version.
        """
        rebuild = f"Rebuild: emostream-export build CKPT --out {folder}"
        try:
            fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            found = fields.get("version")
        except (OSError, ValueError, AttributeError) as error:
            raise ExportError(f"{folder / MANIFEST} cannot be read ({error}). {rebuild}") from error
        if found != VERSION:
            raise ExportError(
                f"{folder / MANIFEST} has version {found}, wanted {VERSION}. {rebuild}"
            )
        try:
            manifest = cls(**fields)
            complete = all({"file", "sha256"} <= graph.keys() for graph in manifest.graphs.values())
        except (TypeError, AttributeError) as error:
            raise ExportError(f"{folder / MANIFEST} cannot be read ({error}). {rebuild}") from error
        if not complete or manifest.target not in BACKENDS:
            raise ExportError(f"{folder / MANIFEST} lacks what a manifest has. {rebuild}")
        return manifest

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read it, and check that the graphs are the ones that it speaks of.

        Raises:
            ExportError: It is missing, malformed or of another version, or a graph is missing or altered.
        """
        manifest = cls.peek(folder)
        for name, graph in manifest.graphs.items():
            file = folder / graph["file"]
            if not file.is_file() or sha256(graph_files(folder, graph)) != graph["sha256"]:
                raise ExportError(
                    f"{file} is missing or is not the {name} graph that was built. Rebuild: emostream-export build "
                    f"{manifest.checkpoint} --out {folder}"
                )
        return manifest


def graph_files(folder: Path, graph: dict[str, Any]) -> list[Path]:
    """A graph's file, and the one beside it if its weights are too many for one."""
    file = folder / graph["file"]
    beside = file.with_name(file.name + ".data")
    return [file, beside] if beside.is_file() else [file]


def sha256(files: Iterable[Path]) -> str:
    """Digest of the contents of files, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one."""
    part = file.with_name(f".{file.name}.partial")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)
