"""An ONNX graph to a TensorRT plan, with its sidecar; built anew only when something that decides it has changed.

Networks are strongly typed: the arithmetic has the dtypes of the graph, nothing is cast behind our back, and a plan of
another precision is built from another graph.
"""

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from export.errors import ExportError
from export.manifest import graph_files, sha256
from export.onnx.precision import Hardware, Precision
from export.tensorrt.probe import Host
from export.tensorrt.profiles import Profile
from export.tensorrt.progress import Heartbeat, logger_of, monitor_of
from export.tensorrt.sidecar import PlanKey, Sidecar, up_to_date

Say = Callable[[str], None]
LEVEL = 3  # 5 compiles every kernel anew and takes hours

DTYPE_NAMES: Final = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
#: Layers whose arithmetic costs the time; the rest may well stay in float32, as norms and softmax do.
HEAVY: Final = ("CONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_INPUT")
#: Least part of them that must have the dtype asked for; the gate's few products are float32.
HEAVY_SHARE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class BuilderOptions:
    """How a plan is built.

    Attributes:
        version_compatible: The plan runs on later releases of TensorRT 11 too, at some cost in speed.
        hardware: Other GPUs that it runs on: none, those of the same compute capability, or any from Ampere on.
    """

    version_compatible: bool = False
    hardware: Hardware = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineReport:
    """A plan, as a manifest speaks of it.

    Attributes:
        file: Its name.
        sha256: Of the file.
        bytes: Of the file.
        precision: Of the graph.
        dtypes: Convolutions and matrix products of the network, by dtype.
        profiles: `{"input": [least, usual, most]}` for each.
        tensorrt: Version.
        gpu: That it is for.
        seconds: That the build took, if not reused when it was built.
        reused: Whether it was there already.
    """

    file: str
    sha256: str
    bytes: int
    precision: str
    dtypes: dict[str, int]
    profiles: list[dict[str, Any]]
    tensorrt: str
    gpu: str
    seconds: float
    reused: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def build_engine(
    onnx_path: Path,
    plan_path: Path,
    *,
    profiles: Sequence[Profile],
    precision: Precision,
    host: Host,
    say: Say,
    options: BuilderOptions | None = None,
) -> EngineReport:
    """Build a plan, unless the one in place would come out the same.

    Args:
        onnx_path: Graph; weights may lie beside it in `<name>.data`.
        plan_path: Plan; its sidecar is written beside it.
        profiles: Shapes that it must serve, tightest first.
        precision: Of the graph.
        host: From `probe`.
        say: Told of each step, and every few seconds of a long one.
        options: Compatibility with other versions and GPUs.

    Raises:
        ExportError: The graph cannot be parsed, has not the precision asked for, or no plan can be built or written.
    """
    options = options or BuilderOptions()
    name = plan_path.stem
    key = PlanKey(
        onnx_sha256=sha256(_files(onnx_path)),
        tensorrt=host.version,
        compute_capability=host.gpu.compute_capability,
        gpu=host.gpu.name,
        precision=precision,
        profiles=[profile.as_dict() for profile in profiles],
        options=asdict(options) | {"level": LEVEL},
    )
    if sidecar := up_to_date(plan_path, key):
        say(f"{name}: the plan is up to date")
        return _report(plan_path, sidecar, reused=True)
    _refuse_full_disk(onnx_path, plan_path)
    begun_s = time.perf_counter()
    trt = host.tensorrt
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network, dtypes = _parse(trt, builder, logger, onnx_path, precision)
    say(
        f"{name}: {network.num_layers} layers, TensorRT {host.version}, {len(profiles)} profiles, products in "
        + ", ".join(f"{dtype} {count}" for dtype, count in dtypes.items())
    )
    config = _configure(trt, builder, profiles, precision, options, name)
    cache = timing_cache_path(host)
    _load_timing_cache(config, cache, say)
    with Heartbeat(name, say) as heartbeat:
        config.progress_monitor = monitor = monitor_of(trt, heartbeat)
        plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise ExportError(
            f"{name}: TensorRT {host.version} builds no {precision} plan: {logger.reason}. {_remedy(logger.reason)}"
        )
    try:
        _write(plan_path, memoryview(plan))
        sidecar = Sidecar(
            key=key,
            plan_sha256=sha256([plan_path]),
            dtypes=dtypes,
            seconds=round(time.perf_counter() - begun_s, 1),
        )
        sidecar.write(plan_path)
    except OSError as error:
        raise ExportError(
            f"{plan_path} cannot be written ({plan.nbytes / 1e6:.0f} MB): {error}. Free the space or choose "
            "another folder."
        ) from error
    _save_timing_cache(config, cache, say)
    report = _report(plan_path, sidecar, reused=False)
    say(f"{name}: plan of {report.bytes / 1e6:.1f} MB in {report.seconds:.1f} s")
    return report


def timing_cache_path(host: Host) -> Path:
    """Measurements of kernels, shared by all builds of this GPU and version."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", f"{host.gpu.name} sm{host.gpu.compute_capability}")
    return Path(cache) / "emostream" / f"tensorrt-{host.version}-{gpu}.timing"


def _parse(
    trt: Any, builder: Any, logger: Any, onnx_path: Path, precision: Precision
) -> tuple[Any, dict[str, int]]:
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reason = "; ".join(
            f"node {error.node_name() or error.node()} ({error.node_operator()}): {error.desc()}"
            for error in errors[:3]
        )
        raise ExportError(
            f"{onnx_path}: TensorRT {trt.__version__} cannot parse the graph: {_one_line(reason) or logger.reason}. Is "
            "it of this version of emostream? Build it anew: emostream-export build"
        )
    dtypes = heavy_dtypes(network)
    wanted = DTYPE_NAMES[precision]
    share = dtypes.get(wanted, 0) / max(1, sum(dtypes.values()))
    if share < HEAVY_SHARE:
        raise ExportError(
            f"{onnx_path.stem}: asked for {precision}, but {1 - share:.0%} of the network's products are of another "
            f"type ({', '.join(f'{dtype} {count}' for dtype, count in dtypes.items())}). Please report this."
        )
    return network, dtypes


def heavy_dtypes(network: Any) -> dict[str, int]:
    """Convolutions and matrix products by the dtype of their results."""
    found: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in HEAVY:
            found[layer.get_output(0).dtype.name] += 1
    return dict(found.most_common())


def _configure(
    trt: Any,
    builder: Any,
    profiles: Sequence[Profile],
    precision: Precision,
    options: BuilderOptions,
    name: str,
) -> Any:
    config = builder.create_builder_config()
    config.builder_optimization_level = LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector's dtypes
    config.max_aux_streams = 0  # all graphs take turns on one stream and share one scratch memory
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # which has a tenth of the digits
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.hardware_compatibility_level = getattr(
        trt.HardwareCompatibilityLevel, options.hardware.upper()
    )
    for profile in profiles:
        made = builder.create_optimization_profile()
        for tensor in profile.least:
            made.set_shape(
                tensor, profile.least[tensor], profile.usual[tensor], profile.most[tensor]
            )
        if config.add_optimization_profile(made) < 0:
            raise ExportError(f"{name}: TensorRT refuses the profile {profile.as_dict()}.")
    return config


def _load_timing_cache(config: Any, file: Path, say: Say) -> None:
    """Attach the kept cache, or an empty one; TensorRT refuses one of another GPU or version."""
    kept = file.read_bytes() if file.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(kept), False):
        say(f"{file} is of another GPU or TensorRT; kernels are measured anew")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timing_cache(config: Any, file: Path, say: Say) -> None:
    """Losing it costs time only, so that a full disk is said and no more."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, memoryview(cache.serialize()))
    except OSError as error:
        say(f"the timing cache {file} cannot be kept: {error}")


def _write(file: Path, data: memoryview) -> None:
    part = file.with_name(f".{file.name}.partial")
    try:
        part.write_bytes(data)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _refuse_full_disk(onnx_path: Path, plan_path: Path) -> None:
    """A plan holds the graph's weights: say so before minutes are spent."""
    needed = sum(file.stat().st_size for file in _files(onnx_path))
    free = shutil.disk_usage(plan_path.parent).free
    if needed > free:
        raise ExportError(
            f"{plan_path.parent} has {free / 1e9:.2f} GB free, the plan needs about {needed / 1e9:.2f} GB. Free the "
            "space or choose another folder."
        )


def _remedy(reason: str) -> str:
    if re.search(r"out ?of ?memory|insufficient memory", reason, re.IGNORECASE):
        return "The GPU's memory is too small or taken: see nvidia-smi, or lower --max-sources."
    return "Try --precision fp32, or ONNX Runtime: --target onnx."


def _files(onnx_path: Path) -> list[Path]:
    return graph_files(onnx_path.parent, {"file": onnx_path.name})


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _report(plan: Path, sidecar: Sidecar, *, reused: bool) -> EngineReport:
    return EngineReport(
        file=plan.name,
        sha256=sidecar.plan_sha256,
        bytes=plan.stat().st_size,
        precision=sidecar.key.precision,
        dtypes=sidecar.dtypes,
        profiles=sidecar.key.profiles,
        tensorrt=sidecar.key.tensorrt,
        gpu=sidecar.key.gpu,
        seconds=sidecar.seconds,
        reused=reused,
    )
