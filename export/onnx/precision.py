"""Precisions of the arithmetic inside a graph: which there are, how far each may be off, what follows a failure."""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import torch

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Target = Literal["onnx", "tensorrt"]
#: Other GPUs that a plan runs on.
Hardware = Literal["none", "same_compute_capability", "ampere_plus"]

#: Of the graph as torch exports it; int8 is made from float32.
DTYPES: Final[dict[str, torch.dtype]] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far an engine may be from torch in float32.

    Attributes:
        relative_l2: Largest norm of the error over the norm of the output, for each output.
        cosine: Least cosine between the outputs.
        agreement: Least part of the windows of real clips on which the label is the same.
        kl: Largest mean of KL(torch ‖ engine) of the scores over these windows, in nats.
    """

    relative_l2: float
    cosine: float
    agreement: float
    kl: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


TOLERANCES: Final[dict[str, Tolerance]] = {
    "fp32": Tolerance(relative_l2=1e-4, cosine=0.99999, agreement=1.0, kl=1e-6),
    "fp16": Tolerance(relative_l2=1e-2, cosine=0.9995, agreement=0.98, kl=1e-3),
    "bf16": Tolerance(relative_l2=5e-2, cosine=0.998, agreement=0.95, kl=5e-3),
    "int8": Tolerance(relative_l2=1e-1, cosine=0.995, agreement=0.95, kl=1e-2),
}


def fallbacks(asked: Precision, target: Target) -> tuple[Precision, ...]:
    """Precisions to try in turn, the one asked for first.

    ONNX Runtime runs no bfloat16 convolution at opset 20, so that with it fp16 is followed by fp32.
    """
    if asked == "fp16":
        return ("fp16", "bf16", "fp32") if target == "tensorrt" else ("fp16", "fp32")
    return ("bf16", "fp32") if asked == "bf16" else (asked,)


def loosest(precisions: list[str]) -> str:
    """The precision of the widest tolerance among those of an export's graphs."""
    return max(precisions, key=lambda precision: TOLERANCES[precision].relative_l2)
