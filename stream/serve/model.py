"""From a model's name on the command line to a recognizer that can be fed."""

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emostream.checkpoint.shipped import DEFAULT_MODEL, licence_notice
from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS, validate_labels

if TYPE_CHECKING:
    from emostream.inference.recognizer import Recognizer
    from emostream.inference.voices import Voices
    from emostream.model.modeling import EmostreamForCausalLM
    from emostream.model.processor import EmostreamProcessor

DTYPES = ("float32", "bfloat16", "float16")
SMALL_PARAMETERS = 50_000_000
BASELINE_OFF = "off"
BACKENDS = ("torch", "onnxruntime", "tensorrt")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which model answers, and what.

    Attributes:
        model: `small`, `tiny`, a checkpoint folder or a hub id.
        device: torch device; None takes a CUDA GPU if there is one.
        dtype: Of the parameters; None is bfloat16 on a GPU and float32 elsewhere.
        labels: Label list.
        audio_context_s: Seconds that audio is padded to; None is what the model was trained with.
        max_new_tokens: Longest reasoned answer.
        slots: Reasoned answers at once.
        engines: Export directory whose graphs run the encoders; None runs the model's own modules.
        backend: What runs the encoders; None is what `engines` was built for, and torch without engines.
        baseline: File that keeps what is known of the voice of the one person who is shown; `off`: nobody is got to
            know; None: everybody is, and nothing is kept.
    """

    model: str = DEFAULT_MODEL
    device: str | None = None
    dtype: str | None = None
    labels: tuple[str, ...] = DEFAULT_LABELS
    audio_context_s: float | None = None
    max_new_tokens: int = 256
    slots: int = 8
    engines: Path | None = None
    backend: str | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        validate_labels(self.labels)
        if len(self.labels) < 2:
            raise ConfigError(
                f"--labels {self.labels[0]}: one label is always right; name two or more."
            )
        if self.backend is not None and self.backend not in BACKENDS:
            raise ConfigError(f"--backend {self.backend}: wanted one of {', '.join(BACKENDS)}.")
        if self.backend not in (None, "torch") and self.engines is None:
            raise ConfigError(
                f"--backend {self.backend} runs exported encoders and needs --engines DIR. Make them: "
                f"emostream-export build {self.model} --out DIR"
            )
        if self.baseline == "":
            raise ConfigError(f"--baseline: wanted a file's name, or {BASELINE_OFF}.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"--dtype {self.dtype}: wanted one of {', '.join(DTYPES)}.")

    @property
    def baseline_file(self) -> str | None:
        """Where a person's baseline is kept, if it is."""
        return None if self.baseline == BASELINE_OFF else self.baseline

    @property
    def name(self) -> str:
        """As published in every label; says what runs the encoders if it is not torch.

        Raises:
            ExportError: The engines' manifest cannot be read.
        """
        name = Path(self.model).name if Path(self.model).is_dir() else self.model
        if self.engines is None or self.backend == "torch":
            return name
        from export.manifest import Manifest

        manifest = Manifest.peek(self.engines)
        return f"{name} ({self.backend or manifest.backend} {'+'.join(manifest.precisions)})"

    def say_licence(self) -> None:
        """Tell the person who starts a model that ships what it may be used for, in a line on stderr."""
        if (notice := licence_notice(self.model)) is not None:
            print(notice, file=sys.stderr, flush=True)  # noqa: T201  for that person


def import_torch() -> None:
    """Import it in one go: a signal's handler that raises in the middle of it aborts the process."""
    # Beside other busy processes, threads that spin at every barrier wait for one that has no core: a hop of 25 ms
    # took seconds. Read by OpenMP when torch is imported, so it must stand before that.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    importlib.import_module("torch")


def load(config: ModelConfig) -> "tuple[EmostreamForCausalLM, EmostreamProcessor]":
    """The model and its processor.

    Raises:
        ConfigError: The device cannot be had.
        CheckpointError: The model cannot be loaded.
    """
    import_torch()
    import torch

    from emostream.devices import resolve_device
    from emostream.model.load import load_model

    found = resolve_device(config.device)
    dtype = config.dtype or ("bfloat16" if found.type == "cuda" else "float32")
    model, processor = load_model(config.model, found, getattr(torch, dtype))
    processor.audio_context_s = config.audio_context_s
    if found.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # A small model gains little from a second thread, and loses all when anything else wants that core.
        small = sum(p.numel() for p in model.parameters()) < SMALL_PARAMETERS
        torch.set_num_threads(1 if small else os.cpu_count() or 1)
    return model, processor


def load_recognizer(config: ModelConfig) -> "Recognizer":
    """The model behind both speeds; raises as `load` does."""
    from emostream.inference.recognizer import Recognizer

    model, processor = load(config)
    voices = load_voices(config, model)
    engines = _checked_engines(config)
    if engines is None:
        encoders = None
    else:
        from export.runtime import load_encoders

        model.drop_encoders()  # before the engines are read: both at once would be the most that is ever needed
        encoders = load_encoders(engines, model.device, model.dtype, config.backend)
    return Recognizer(
        model,
        processor,
        labels=config.labels,
        encoders=encoders,
        slots=config.slots,
        max_new_tokens=config.max_new_tokens,
        voices=voices,
    )


def load_voices(config: ModelConfig, model: "EmostreamForCausalLM") -> "Voices | None":
    """What a model knows of people's voices; None if it judges every voice as a stranger's by nature.

    Raises:
        ConfigError: The baseline cannot be read, or the model has none.
    """
    from emostream.inference.voices import voices_of

    return voices_of(model, follow=config.baseline != BASELINE_OFF, file=config.baseline_file)


def check_one_person(config: ModelConfig, sources: int, people: int) -> None:
    """See to it that there is only one person where a person's baseline is to be kept.

    Args:
        config: Names the file.
        sources: How many there are; 0 for whoever connects.
        people: How many are shown of each.

    Raises:
        ConfigError: There may be more.
    """
    if config.baseline_file is not None and (sources != 1 or people > 1):
        what = f"--people {people}" if sources == 1 else f"{sources or 'any number of'} sources"
        raise ConfigError(
            f"--baseline {config.baseline} keeps one person's voice, and with {what} there may be more. Run one source "
            "with --people 1 for each, or leave --baseline out."
        )


def _checked_engines(config: ModelConfig) -> Path | None:
    """Where the exported graphs lie, if they are asked for.

    Raises:
        ExportError: They are of another checkpoint, or their manifest cannot be read.
    """
    if config.engines is None or config.backend == "torch":
        return None
    from emostream.checkpoint.resolve import find_checkpoint
    from export.errors import ExportError
    from export.manifest import Manifest, sha256

    manifest = Manifest.peek(config.engines)
    if sha256(find_checkpoint(config.model).files()) != manifest.checkpoint_sha256:
        raise ExportError(
            f"engines: {config.engines} was built from another checkpoint than {config.model}. Rebuild: "
            f"emostream-export build {config.model} --out {config.engines}"
        )
    return config.engines
