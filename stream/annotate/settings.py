"""What is asked of every file of a run; goes to each worker, and with a file's name decides whether it is done."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from emostream.errors import ConfigError
from stream.serve.model import ModelConfig
from stream.windows.config import InferenceConfig

Reasons = Literal["every", "changes", "none"]
Format = Literal["jsonl", "csv", "eaf", "textgrid", "png", "parquet"]
REASONS: Final[tuple[Reasons, ...]] = get_args(Reasons)
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_PACKAGES: Final = {
    "eaf": "pympi",
    "textgrid": "praatio",
    "png": "matplotlib",
    "parquet": "pyarrow",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Model, windows, and what is written.

    Attributes:
        model: Which model, with which labels.
        inference: Windows and smoothing.
        reasons: `changes` explains the first label and each change of the rolling one; `every` also explains after
            every `inference.reason_every_s` seconds.
        formats: What to write of each file; `parquet` is of the whole run.
    """

    model: ModelConfig
    inference: InferenceConfig
    reasons: Reasons = "changes"
    formats: tuple[Format, ...] = ("jsonl",)

    def __post_init__(self) -> None:
        from importlib.util import find_spec

        if self.inference.people > 1:
            raise ConfigError(f"annotate: --people {self.inference.people}: wanted 0 or 1.")
        if self.model.baseline_file is not None:
            raise ConfigError(
                f"annotate: --baseline {self.model.baseline}: wanted off, or nothing: each file is a person of its own."
            )
        for format in self.formats:
            if format not in FORMATS:
                raise ConfigError(f"--format {format}: wanted some of {', '.join(FORMATS)}.")
            package = _PACKAGES.get(format)
            if package is not None and find_spec(package) is None:
                raise ConfigError(
                    f"--format {format} needs {package}: pip install 'emostream[annotate]'"
                )

    def digest(self) -> str:
        """Changes with anything that changes the results, a model folder's files included."""
        folder = Path(self.model.model)
        files = sorted(
            (path.name, (stat := path.stat()).st_size, stat.st_mtime_ns)
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.is_file()
        )
        asked = (repr(self.model), repr(self.inference), self.reasons, sorted(self.formats), files)
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]
