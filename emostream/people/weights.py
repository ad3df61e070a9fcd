"""The small networks of others that ship with this package: where their files are, and that they are theirs."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from emostream.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Weights:
    """A file in `emostream/assets/people`, whose README.md says where it is from and under which licence."""

    name: str
    sha256: str

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            CheckpointError: The file is missing or is not the one that was published.
        """
        file = files("emostream").joinpath("assets", "people", self.name)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror}. Install emostream again.") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise CheckpointError(
                f"{file}: wanted the published file with SHA-256 {self.sha256[:16]}…, found {found[:16]}…. Install "
                "emostream again."
            )
        return content


FACES = Weights(
    "face_detection_yunet_2023mar.onnx",
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
)
SPEECH = Weights(
    "silero_vad_16k.safetensors",
    "88970663a0fa9f483aca0b5d117f76d10071e2b7bb9730ce2775f6cfc68e4304",
)
