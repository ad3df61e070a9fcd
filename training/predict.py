"""A model's predictions on a manifest's clips: label-first under each condition, and reasoned."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emostream.errors import ConfigError, MediaError
from emostream.labels import DEFAULT_LABELS, validate_labels
from emostream.media import load_clip, read_audio
from emostream.modeling import EmostreamForCausalLM
from emostream.processor import EmostreamProcessor
from emostream.recognizer import Recognizer
from emostream.streaming import MediaWindow
from training.manifest import Row
from training.results import CONDITIONS, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """How to evaluate.

    Attributes:
        labels: The label set that is scored and that answers are read against.
        reasoning: Also let the model write its reasoned answer (or, if it is label-only, answer).
        conditions: Of `CONDITIONS`, what the model is shown for label-first scoring; `both` always.
        batch_size: Clips at once.
        max_new_tokens: Longest reasoned answer.
        seed: Of whose sound a clip gets under `shuffled_audio`.
        instruction: Question of the prompt; the processor's if None.
        loaders: Threads that decode clips.

    Raises:
        ConfigError: A value is out of range or unknown.
    """

    labels: Sequence[str] = DEFAULT_LABELS
    reasoning: bool = True
    conditions: Sequence[str] = CONDITIONS
    batch_size: int = 8
    max_new_tokens: int = 256
    seed: int = 0
    instruction: str | None = None
    loaders: int = 2

    def __post_init__(self) -> None:
        validate_labels(self.labels)
        if unknown := [c for c in self.conditions if c not in CONDITIONS]:
            raise ConfigError(
                f"eval: unknown condition {unknown[0]!r}; wanted some of {', '.join(CONDITIONS)}"
            )
        for name in ("batch_size", "max_new_tokens", "loaders"):
            if getattr(self, name) < 1:
                raise ConfigError(f"eval: {name} is {getattr(self, name)}; wanted 1 or more")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A decoded clip, or why it could not be decoded; `other` is the sound it gets when shuffled."""

    index: int
    frames: NDArray[np.uint8] | None = None
    audio: NDArray[np.float32] | None = None
    other: NDArray[np.float32] | None = None
    problem: str | None = None


def predict(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    todo: Sequence[int],
    settings: EvalSettings,
) -> Iterator[list[Prediction]]:
    """Yield predictions batch by batch, in the order of `todo`.

    Args:
        model: From `load_model`, on its device.
        processor: Likewise.
        rows: All clips of the evaluation; shuffled sound is drawn from all of them.
        todo: Indices of the clips to predict.
        settings: How.
    """
    if not todo:
        return
    recognizer = Recognizer(
        model,
        processor,
        labels=settings.labels,
        instruction=settings.instruction,
        slots=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
    )
    conditions = [c for c in CONDITIONS if c == "both" or c in settings.conditions]
    partners = _partners(rows, settings.seed) if "shuffled_audio" in conditions else None
    loaded = _load_ahead(rows, todo, partners, model.config.num_frames, settings)
    while batch := list(itertools.islice(loaded, settings.batch_size)):
        yield _predict_batch(recognizer, rows, batch, conditions, settings)


def _partners(rows: Sequence[Row], seed: int) -> list[int]:
    """Whose sound each clip gets: the next clip's in a random cycle, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(len(rows))
    partners = np.empty(len(rows), int)
    partners[order] = np.roll(order, -1)
    return [int(partner) for partner in partners]


def _predict_batch(
    recognizer: Recognizer,
    rows: Sequence[Row],
    batch: Sequence[_Loaded],
    conditions: Sequence[str],
    settings: EvalSettings,
) -> list[Prediction]:
    scores: dict[int, dict[str, dict[str, float]]] = {clip.index: {} for clip in batch}
    texts: dict[int, tuple[str, bool]] = {}
    # Pictures are encoded once: the conditions that need them come before the one without.
    order = [c for c in ("both", "shuffled_audio", "video", "audio") if c in conditions]
    for condition in order:
        windows = [w for clip in batch if (w := _window(clip, condition)) is not None]
        results = recognizer.recognize(windows)
        for result in results:
            scores[int(result.source)][condition] = result.scores
        if condition == "both" and settings.reasoning:
            for result in results:
                recognizer.start_reasoning(result)
            while steps := recognizer.reason():
                for step in steps:
                    texts[int(str(step.key))] = (step.text, step.truncated)
    for clip in batch:
        recognizer.forget(str(clip.index))
    return [
        Prediction(
            index=clip.index,
            path=str(rows[clip.index].path),
            label=str(rows[clip.index].label),
            scores=scores[clip.index],
            text=texts.get(clip.index, (None, False))[0],
            truncated=texts.get(clip.index, (None, False))[1],
            skipped=clip.problem,
        )
        for clip in batch
    ]


def _window(clip: _Loaded, condition: str) -> MediaWindow | None:
    """What the model is shown; None where the clip lacks what the condition needs."""
    if clip.problem is not None:
        return None
    pictures = None if condition == "audio" else clip.frames
    sound = {"video": None, "shuffled_audio": clip.other}.get(condition, clip.audio)
    lacks_pictures = condition in ("video", "shuffled_audio") and pictures is None
    lacks_sound = condition in ("audio", "shuffled_audio") and sound is None
    if lacks_pictures or lacks_sound or (pictures is None and sound is None):
        return None
    frames = () if pictures is None else tuple(pictures)
    return MediaWindow(
        source=str(clip.index), keys=tuple(range(len(frames))), frames=frames, audio=sound
    )


def _load_ahead(
    rows: Sequence[Row],
    todo: Sequence[int],
    partners: Sequence[int] | None,
    num_frames: int,
    settings: EvalSettings,
) -> Iterator[_Loaded]:
    """Decode clips on threads, at most two batches ahead of the model."""

    def load(index: int) -> _Loaded:
        row = rows[index]
        if row.label is None:
            return _Loaded(index, problem="no label")
        try:
            clip = load_clip(row.path, num_frames, row.start_s, row.end_s)
        except MediaError as error:
            return _Loaded(index, problem=f"unreadable: {error}")
        other = None if partners is None else _sound(rows[partners[index]])
        return _Loaded(index, clip.frames, clip.audio, other)

    with ThreadPoolExecutor(settings.loaders, thread_name_prefix="clips") as pool:
        ahead: deque[Future[_Loaded]] = deque()
        for index in todo:
            ahead.append(pool.submit(load, index))
            if len(ahead) > 2 * settings.batch_size:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _sound(row: Row) -> NDArray[np.float32] | None:
    try:
        return read_audio(row.path, row.start_s, row.end_s).pcm
    except MediaError:
        return None  # counted where that row is evaluated itself
