"""Encoders on TensorRT: buffers that torch allocated, a stream of their own, and a CUDA graph for each shape.

Each shape has a context of its own: a captured graph is valid only while the context that it was captured from stays
as it was. All contexts share one scratch memory, which is safe because all of them take turns on one stream.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emostream.model.connector import FrameFeatures
from export.buffered import BufferedGraph, Buffers, Shape
from export.errors import ExportError
from export.manifest import Manifest, graph_files
from export.tensorrt.probe import Host, probe
from export.tensorrt.profiles import Profile, choose
from export.tensorrt.progress import logger_of
from export.tensorrt.sidecar import Sidecar, check_plan

#: Runs before a capture: TensorRT sets itself up for the shape in the first.
WARM_UP_RUNS = 2
INSPECTED = {
    "fp32": r"\b(FP32|Float|FLOAT)\b",
    "fp16": r"\b(FP16|Half|HALF)\b",
    "bf16": r"\b(BF16|BFloat16|BFLOAT16)\b",
}


class TensorRTEncoders:
    """`emostream.inference.encoders.Encoders` on TensorRT plans.

    Args:
        folder: Export directory.
        device: CUDA device, where the language model runs and outputs go.
        dtype: Of the language model.
        host: What `probe` says of the device; None asks it.

    Attributes:
        description: What really runs, for people.
        manifest: Of the directory.

    Raises:
        ExportError: The directory is not whole, there is no driver, GPU or TensorRT, or a plan is not for them.
    """

    def __init__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, host: Host | None = None
    ):
        if host is None:
            if device.type != "cuda":
                raise ExportError(
                    f"engines: TensorRT plans run on a GPU, not on {device}. Use --device cuda, or --backend "
                    f"onnxruntime with the graphs of {folder}."
                )
            host = probe(device.index or 0)
        self.device, self.dtype = device, dtype
        self.manifest = Manifest.read(folder)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with torch.cuda.device(device) if self._stream else contextlib.nullcontext():
            self._logger = logger_of(host.tensorrt)
            self._runtime = host.tensorrt.Runtime(self._logger)
            engines = {
                name: self._open(host, folder, name, graph)
                for name, graph in self.manifest.graphs.items()
            }
        scratch = torch.empty(
            max(engine.device_memory_size_v2 for engine, _ in engines.values()),
            dtype=torch.uint8,
            device=device,
        )
        self._engines = {
            name: BoundEngine(
                host.tensorrt,
                engine,
                profiles=_profiles(sidecar),
                inputs=self.manifest.graphs[name]["inputs"],
                outputs=self.manifest.graphs[name]["outputs"],
                device=device,
                stream=self._stream,
                scratch=scratch,
                reason=lambda: str(self._logger.reason),
            )
            for name, (engine, sidecar) in engines.items()
        }
        precisions = "+".join(
            dict.fromkeys(sidecar.key.precision for _, sidecar in engines.values())
        )
        self.description = f"tensorrt {host.version} {host.gpu.name} {precisions}"
        if self._stream is not None:
            self.description += " with CUDA graphs"

    def _open(
        self, host: Host, folder: Path, name: str, graph: Mapping[str, Any]
    ) -> tuple[Any, Sidecar]:
        plan = folder / f"{name}.plan"
        sidecar = check_plan(plan, graph_files(folder, dict(graph)), host)
        if sidecar.key.options.get("version_compatible"):
            self._runtime.engine_host_code_allowed = True  # such a plan brings its own runtime
        engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise ExportError(
                f"{plan}: TensorRT {host.version} cannot open the plan: {self._logger.reason}. Rebuild: "
                f"emostream-export build {self.manifest.checkpoint} --out {folder} --target tensorrt"
            )
        information = engine.create_engine_inspector().get_engine_information(
            host.tensorrt.LayerInformationFormat.JSON
        )
        dtypes = inspected_dtypes(information, graph["outputs"])
        check_dtypes(name, sidecar.key.precision, dtypes)
        return engine, sidecar

    def vision(self, pixels_N3SS: Tensor) -> FrameFeatures:
        """See `Encoders.vision`."""
        return FrameFeatures(*self._run("vision", pixels_N3SS))

    def join(self, previous: FrameFeatures, current: FrameFeatures, gate_3: Tensor) -> Tensor:
        """See `Encoders.join`."""
        return self._run("join", previous.maps, current.maps, current.face, gate_3)[0]

    def audio(self, mel_BFM: Tensor) -> Tensor:
        """See `Encoders.audio`."""
        return self._run("audio", mel_BFM)[0]

    def _run(self, name: str, *inputs: Tensor) -> list[Tensor]:
        return [tensor.to(self.dtype) for tensor in self._engines[name].run(inputs)]


class BoundEngine(BufferedGraph):
    """One engine.

    Args:
        trt: The tensorrt module.
        engine: Deserialized plan.
        profiles: That it was built with, in its order.
        inputs: Input names, in order.
        outputs: Output names, in order.
        device: Of the buffers.
        stream: That everything runs on; None runs at once, without CUDA graphs.
        scratch: Memory for activations, as large as the engine wants, used by nothing else on another stream.
        reason: The first error that TensorRT logged.

    Raises:
        ExportError: The engine's inputs and outputs are not those.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        *,
        profiles: Sequence[Profile],
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: torch.device,
        stream: "torch.cuda.Stream | None",
        scratch: Tensor,
        reason: Callable[[], str],
    ):
        found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        if set(found) != {*inputs, *outputs}:
            raise ExportError(
                f"engines: wanted inputs and outputs {', '.join([*inputs, *outputs])}; the plan has {', '.join(found)}."
            )
        for name in found:
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise ExportError(
                    f"engines: {name} of the plan is {engine.get_tensor_dtype(name).name}, wanted FLOAT."
                )
        batched = [engine.get_tensor_shape(name)[0] == -1 for name in inputs]
        first = inputs[batched.index(True)]
        largest = max(profile.most[first][0] for profile in profiles)
        super().__init__(batched, largest, device, stream)
        self._trt, self._engine, self._profiles = trt, engine, profiles
        self._inputs, self._outputs = inputs, outputs
        self._scratch, self._reason = scratch, reason

    def _make(self, shapes: tuple[Shape, ...]) -> Buffers:
        """A context that knows its shapes and addresses, warmed up, and captured on a GPU.

        Raises:
            ExportError: The plan has no profile for these shapes, or TensorRT fails.
        """
        named = dict(zip(self._inputs, shapes, strict=True))
        profile = choose(self._profiles, named)
        if profile is None:
            found = ", ".join(f"{name} {shape}" for name, shape in named.items())
            raise ExportError(
                f"engines: the plan has no profile for {found}; its largest is {self._profiles[-1].most}. Rebuild with "
                "the checkpoint that is served: emostream-export build"
            )
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise ExportError(f"engines: TensorRT makes no execution context: {self._reason()}.")
        handle = self._stream.cuda_stream if self._stream is not None else 0
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
        self._must(context.set_optimization_profile_async(profile, handle), "set the profile")
        inputs = [torch.zeros(shape, device=self._device) for shape in shapes]
        for name, buffer in zip(self._inputs, inputs, strict=True):
            self._must(context.set_input_shape(name, tuple(buffer.shape)), f"shape {name}")
            self._must(context.set_tensor_address(name, buffer.data_ptr()), f"bind {name}")
        if missing := context.infer_shapes():
            raise ExportError(f"engines: TensorRT knows no shape of {', '.join(missing)}.")
        outputs = [
            torch.empty(tuple(context.get_tensor_shape(name)), device=self._device)
            for name in self._outputs
        ]
        for name, buffer in zip(self._outputs, outputs, strict=True):
            self._must(context.set_tensor_address(name, buffer.data_ptr()), f"bind {name}")

        def execute() -> None:
            self._must(context.execute_async_v3(handle), "run")

        return Buffers(inputs, outputs, self._captured(execute))

    def _captured(self, execute: Callable[[], None]) -> Callable[[], None]:
        if self._stream is None:
            return execute
        for _ in range(WARM_UP_RUNS):
            execute()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # What other threads allocate meanwhile must not spoil the capture.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            execute()

        def replay(keep: Any = execute) -> None:  # the context must outlive its graph
            graph.replay()

        return replay

    def _must(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise ExportError(f"engines: TensorRT could not {what}: {self._reason()}.")


def inspected_dtypes(information: str, outside: Sequence[str]) -> dict[str, int]:
    """How many results of an engine's layers have each precision, from the inspector's JSON.

    Those `outside` do not count: they are float32 whatever the engine computes in.
    """
    found: Counter[str] = Counter()
    for layer in json.loads(information).get("Layers", []):
        if not isinstance(layer, dict):
            continue  # built without details
        for output in layer.get("Outputs", []):
            if output.get("Name") in outside:
                continue
            text = str(output.get("Format/Datatype", output.get("Datatype", "")))
            found.update(name for name, pattern in INSPECTED.items() if re.search(pattern, text))
    return dict(found.most_common())


def check_dtypes(name: str, precision: str, dtypes: Mapping[str, int]) -> None:
    """Refuse an engine none of whose layers has the precision that it was built for; that is a silent fallback.

    An engine whose inspector tells nothing was checked in the network that it was built from.
    """
    if dtypes and not dtypes.get(precision):
        found = ", ".join(f"{dtype} {count}" for dtype, count in dtypes.items())
        raise ExportError(
            f"{name}: the plan was built for {precision}, but the engine's layers are {found}. Please report this."
        )


def _profiles(sidecar: Sidecar) -> list[Profile]:
    return [
        Profile(
            least={name: tuple(low) for name, (low, _, _) in profile.items()},
            usual={name: tuple(usual) for name, (_, usual, _) in profile.items()},
            most={name: tuple(high) for name, (_, _, high) in profile.items()},
        )
        for profile in sidecar.key.profiles
    ]
