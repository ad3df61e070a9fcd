"""Encoders on ONNX Runtime, behind the same seam as the model's own modules."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emostream.connector import FrameFeatures
from export.manifest import ExportError, Manifest


class OnnxEncoders:
    """`emostream.encoders.Encoders` on ONNX Runtime's CPU provider.

    Args:
        folder: Export directory.
        device: Where the language model runs, and outputs go.
        dtype: Of the language model.

    Raises:
        ExportError: The directory is not whole, onnxruntime is missing, or it does not give the provider asked for.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype):
        try:
            import onnxruntime
        except ImportError as error:
            raise ExportError(
                "engines: onnxruntime is not installed. Install it: pip install 'emostream[onnx]'"
            ) from error
        self.device, self.dtype = device, dtype
        self.manifest = Manifest.read(folder)
        wanted = "CPUExecutionProvider"
        options = onnxruntime.SessionOptions()
        # Threads that spin between hops would take the cores from capture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = torch.get_num_threads()
        self._sessions = {
            name: onnxruntime.InferenceSession(
                str(folder / graph["file"]), options, providers=[wanted]
            )
            for name, graph in self.manifest.graphs.items()
        }
        for name, session in self._sessions.items():
            if session.get_providers()[0] != wanted:
                raise ExportError(
                    f"engines: {name} runs on {session.get_providers()[0]}, not {wanted}; reinstall onnxruntime."
                )

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
        graph = self.manifest.graphs[name]
        fed = {
            key: np.ascontiguousarray(value.detach().float().cpu().numpy())
            for key, value in zip(graph["inputs"], inputs, strict=True)
        }
        outputs = self._sessions[name].run(graph["outputs"], fed)
        return [torch.from_numpy(array).to(self.device, self.dtype) for array in outputs]
