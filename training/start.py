"""What training starts from: a checkpoint or a preset with random weights, and those clips that can be decoded."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import PartialState

from emostream import load_model
from emostream.errors import ConfigError
from emostream.modeling import EmostreamForCausalLM
from emostream.presets import PRESETS, from_preset
from emostream.processor import EmostreamProcessor
from training.features import FeatureStore, cache_features
from training.manifest import Row

logger = logging.getLogger(__name__)

#: Told of a named step: how much is done, and of how much.
Step = Callable[[str, int, int], None]
Progress = Callable[[], AbstractContextManager[Step]]

PRESET = "preset:"


def open_start(name: str, dtype: torch.dtype) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """A model on the CPU and its processor.

    Args:
        name: Checkpoint folder, hub id or `tiny`; `preset:NAME` has random weights.
        dtype: Of the weights.

    Raises:
        ConfigError: There is no such preset.
        CheckpointError: There is no such checkpoint.
    """
    if not name.startswith(PRESET):
        return load_model(name, dtype=dtype)
    preset = name.removeprefix(PRESET)
    if preset not in PRESETS:
        raise ConfigError(f"model: there is no preset {preset!r}; wanted {', '.join(PRESETS)}.")
    model, processor = from_preset(preset)
    return model.to(dtype), processor


def unseen() -> AbstractContextManager[Step]:
    """Progress that nobody sees."""
    return nullcontext(lambda name, done, total: None)


def cache_clips(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    folder: str | Path,
    progress: Progress,
) -> FeatureStore:
    """The towers' features of all clips; the main process of a run computes them, the others read them."""
    state = PartialState()
    shown = progress() if state.is_main_process else unseen()
    with state.main_process_first(), shown as step:
        return cache_features(
            model,
            processor,
            rows,
            folder,
            on_progress=lambda done, total: step("clips encoded", done, total),
        )


def usable_rows(rows: Sequence[Row], store: FeatureStore) -> list[Row]:
    """Those rows whose clips could be decoded; the others are reported.

    Raises:
        ConfigError: There are rows, but none is usable.
    """
    report_left_out(rows, [store.problem(row) for row in rows])
    usable = store.usable(rows)
    if rows and not usable:
        raise ConfigError(
            f"none of {len(rows)} clips can be decoded; {store.problem(rows[0])}. Check the manifest's paths."
        )
    return usable


def report_left_out(rows: Sequence[Row], problems: Sequence[str | None]) -> None:
    """Say, on the main process, how many clips are left out and why the first one is."""
    left_out = [(row, problem) for row, problem in zip(rows, problems, strict=True) if problem]
    if left_out and PartialState().is_main_process:
        row, problem = left_out[0]
        logger.warning(
            "%d of %d clips are left out, the first %s: %s",
            len(left_out),
            len(rows),
            row.path,
            problem,
        )
