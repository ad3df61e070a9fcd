"""Encoders on ONNX Runtime or TensorRT, behind the same seam as the model's own modules."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emostream.inference.encoders import Encoders
from emostream.model.connector import FrameFeatures
from export.bound import BoundGraph
from export.environment import import_onnxruntime
from export.errors import ExportError
from export.manifest import Manifest

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def load_encoders(
    folder: Path, device: torch.device, dtype: torch.dtype, backend: str | None = None
) -> Encoders:
    """Encoders of an export directory.

    Args:
        folder: Export directory.
        device: Where the language model runs, and outputs go.
        dtype: Of the language model.
        backend: `onnxruntime` or `tensorrt`; None is what the manifest was built for.

    Raises:
        ExportError: The directory is not whole, or the backend cannot be had on this host.
    """
    backend = backend or Manifest.peek(folder).backend
    if backend == "onnxruntime":
        return OnnxEncoders(folder, device, dtype)
    manifest = Manifest.peek(folder)
    if manifest.target != "tensorrt":
        raise ExportError(
            f"engines: {folder} holds ONNX graphs and no TensorRT plans. Build them: emostream-export build "
            f"{manifest.checkpoint} --out {folder} --target tensorrt"
        )
    from export.tensorrt.runtime import TensorRTEncoders

    return TensorRTEncoders(folder, device, dtype)


class OnnxEncoders:
    """`emostream.inference.encoders.Encoders` on ONNX Runtime: on a CUDA device its CUDA provider, else the CPU's.

    An int8 graph encodes each frame, pair and clip alone: it scales its activations by the range over the whole batch,
    so that in a batch one source would change another's result.

    Args:
        folder: Export directory.
        device: Where the language model runs, and outputs go.
        dtype: Of the language model.

    Attributes:
        description: What really runs, for people.
        manifest: Of the directory.

    Raises:
        ExportError: The directory is not whole, onnxruntime is missing, or it does not give the provider asked for.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype):
        onnxruntime = import_onnxruntime()
        provider = CUDA if device.type == "cuda" else CPU
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise ExportError(
                f"engines: wanted {provider}, this onnxruntime {onnxruntime.__version__} has {', '.join(available)}. "
                "Remedy: pip uninstall -y onnxruntime && pip install 'emostream[gpu]', or use --device cpu"
            )
        self.device, self.dtype = device, dtype
        self.manifest = Manifest.read(folder)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graphs: dict[str, Any] = {}
        for name, graph in self.manifest.graphs.items():
            if graph["precision"] == "bf16" or (
                graph["precision"] == "int8" and device.type == "cuda"
            ):
                raise ExportError(
                    f"engines: ONNX Runtime runs no {graph['precision']} graph on {device.type} ({name}). Rebuild: "
                    f"emostream-export build {self.manifest.checkpoint} --out {folder} --precision "
                    f"{'fp16' if device.type == 'cuda' else 'int8'}"
                )
            session = self._session(onnxruntime, folder / graph["file"], graph["precision"])
            # It falls back to the CPU without a word.
            if session.get_providers()[0] != provider:
                raise ExportError(
                    f"engines: {name} runs on {session.get_providers()[0]}, not {provider}. Remedy: `emostream doctor`"
                )
            self._graphs[name] = (
                session
                if self._stream is None
                else BoundGraph(onnxruntime, session, device, self._stream)
            )
        precisions = "+".join(self.manifest.precisions)
        self.description = f"onnxruntime {onnxruntime.__version__} {provider} {precisions}"
        if self._stream is not None:
            self.description += " with CUDA graphs"

    def _session(self, onnxruntime: Any, file: Path, precision: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # the placement of shape arithmetic on the CPU is no warning
        if self._stream is None:
            # Threads that spin between hops would take the cores from capture.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.intra_op_num_threads = torch.get_num_threads()
            provider: Any = CPU
        else:
            provider = (
                CUDA,
                {
                    "device_id": str(self.device.index or 0),
                    "user_compute_stream": str(self._stream.cuda_stream),
                    "enable_cuda_graph": "1",
                    "use_tf32": "0" if precision == "fp32" else "1",
                },
            )
        try:
            return onnxruntime.InferenceSession(str(file), options, providers=[provider])
        except Exception as error:  # its errors share no base class
            raise ExportError(
                f"engines: onnxruntime {onnxruntime.__version__} cannot load {file}: {str(error).splitlines()[0]}"
            ) from error

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
        graph, entry = self._graphs[name], self.manifest.graphs[name]
        if isinstance(graph, BoundGraph):
            return [tensor.to(self.dtype) for tensor in graph.run(inputs)]
        arrays = [np.ascontiguousarray(value.detach().float().cpu().numpy()) for value in inputs]
        if entry["precision"] == "int8" and len(arrays[0]) > 1:
            rows = [
                graph.run(
                    entry["outputs"],
                    {
                        key: value if key == "gate" else value[row : row + 1]
                        for key, value in zip(entry["inputs"], arrays, strict=True)
                    },
                )
                for row in range(len(arrays[0]))
            ]
            outputs = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        else:
            outputs = graph.run(entry["outputs"], dict(zip(entry["inputs"], arrays, strict=True)))
        return [torch.from_numpy(array).to(self.device, self.dtype) for array in outputs]
