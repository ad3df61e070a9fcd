"""The JSON beside each plan: what it was built from and for, with digests of the plan and of itself.

A plan that was damaged, or built for another GPU or TensorRT, is refused before TensorRT sees it. Digests keep out
accidents, not attackers: a plan runs what it holds, so that one from elsewhere is to be trusted like a program.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.manifest import sha256, write_atomically
from export.tensorrt.probe import Host

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanKey:
    """All that decides what a plan holds; another key, another plan.

    Attributes:
        onnx_sha256: Of the graph's files.
        tensorrt: Version, in full.
        compute_capability: Of the GPU.
        gpu: Its name.
        precision: Of the graph.
        profiles: `{"input": [least, usual, most]}` for each.
        options: Of the builder.
    """

    onnx_sha256: str
    tensorrt: str
    compute_capability: str
    gpu: str
    precision: str
    profiles: list[dict[str, Any]]
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """What stands beside a plan.

    Attributes:
        key: Of the plan.
        plan_sha256: Of its file.
        dtypes: Convolutions and matrix products of the network, by dtype.
        seconds: That the build took.
        digest: Of all the rest.
    """

    key: PlanKey
    plan_sha256: str
    dtypes: dict[str, int]
    seconds: float
    digest: str = ""
    version: int = VERSION

    def write(self, plan: Path) -> None:
        """Write it beside the plan, in one step."""
        whole = replace(self, digest=_digest(self))
        write_atomically(sidecar_path(plan), json.dumps(asdict(whole), indent=1) + "\n")


def sidecar_path(plan: Path) -> Path:
    """`vision.plan` -> `vision.plan.json`."""
    return plan.with_name(plan.name + ".json")


def read_sidecar(plan: Path) -> Sidecar:
    """The sidecar of a plan, if both are as they were built.

    Raises:
        ExportError: It is missing, malformed, altered or of another version, or the plan is not its own.
    """
    file = sidecar_path(plan)
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        if fields["version"] != VERSION:
            raise ValueError(f"version {fields['version']}, wanted {VERSION}")
        sidecar = Sidecar(**fields | {"key": PlanKey(**fields["key"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(
            f"{file}: no sidecar that can be read ({error}). {_rebuild(plan)}"
        ) from error
    if sidecar.digest != _digest(sidecar):
        raise ExportError(f"{file} is not as it was written beside the plan. {_rebuild(plan)}")
    if not plan.is_file() or sha256([plan]) != sidecar.plan_sha256:
        raise ExportError(
            f"{plan} is missing or is not what {file.name} speaks of. {_rebuild(plan)}"
        )
    return sidecar


def check_plan(plan: Path, onnx_files: Iterable[Path], host: Host) -> Sidecar:
    """The sidecar of a plan that may be opened on this host.

    Args:
        plan: Plan file.
        onnx_files: Of the graph that it should have been built from.
        host: That is to run it.

    Raises:
        ExportError: As `read_sidecar`, or it was built from another graph, for another GPU or by another TensorRT.
    """
    sidecar = read_sidecar(plan)
    key, gpu = sidecar.key, host.gpu
    if key.tensorrt != host.version and not _newer_within_major(sidecar, host):
        raise ExportError(
            f"{plan} was built by TensorRT {key.tensorrt}; this host has {host.version}. {_rebuild(plan)}"
        )
    if not _gpu_agrees(key, host):
        raise ExportError(
            f"{plan} was built for {_gpu(key.gpu, key.compute_capability)}; this host has "
            f"{_gpu(gpu.name, gpu.compute_capability)}. {_rebuild(plan)}"
        )
    if key.onnx_sha256 != sha256(onnx_files):
        raise ExportError(
            f"{plan} was built from another graph than the one beside it. {_rebuild(plan)}"
        )
    return sidecar


def up_to_date(plan: Path, key: PlanKey) -> Sidecar | None:
    """The sidecar of a plan that would come out the same; None if it is to be built."""
    try:
        sidecar = read_sidecar(plan)
    except ExportError:
        return None
    return sidecar if sidecar.key == key else None


def _digest(sidecar: Sidecar) -> str:
    fields = asdict(sidecar) | {"digest": ""}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _newer_within_major(sidecar: Sidecar, host: Host) -> bool:
    """A version-compatible plan runs on its own and later releases of its major version."""
    built, here = (_numbers(version) for version in (sidecar.key.tensorrt, host.version))
    compatible = bool(sidecar.key.options.get("version_compatible"))
    return compatible and built[0] == here[0] and built <= here


def _gpu_agrees(key: PlanKey, host: Host) -> bool:
    here, built = (_numbers(text) for text in (host.gpu.compute_capability, key.compute_capability))
    level = key.options.get("hardware", "none")
    if level == "ampere_plus":
        return here >= [8, 0]
    if level == "same_compute_capability":
        return here == built
    return here == built and host.gpu.name == key.gpu


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _gpu(name: str, capability: str) -> str:
    return f"{name} (sm_{capability.replace('.', '')})"


def _rebuild(plan: Path) -> str:
    return f"Rebuild: emostream-export build CKPT --out {plan.parent} --target tensorrt"
