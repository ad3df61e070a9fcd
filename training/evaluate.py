"""`eval`: run a model over a manifest, batched and resumable, and write eval.json with its report."""

import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from emostream.errors import ConfigError, MediaError
from emostream.labels import DEFAULT_LABELS, validate_labels
from emostream.media import load_clip, read_audio
from emostream.modeling import EmostreamForCausalLM
from emostream.processor import EmostreamProcessor
from emostream.recognizer import Recognizer
from emostream.streaming import MediaWindow
from training.manifest import Row
from training.report import write_report
from training.results import CONDITIONS, Prediction, summarise

PREDICTIONS: Final = "predictions.jsonl"
RESULT: Final = "eval.json"
_RUN: Final = "run.json"


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


def evaluate(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    out: str | Path,
    settings: EvalSettings | None = None,
    *,
    model_name: str = "",
    manifest_name: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluate a model on clips and write predictions.jsonl, eval.json, report.md and plots.

    Predictions are appended batch by batch. A second call with the same model, clips and settings
    continues after the last whole one. Clips that cannot be decoded are skipped, named and counted.

    Args:
        model: From `load_model`, on its device.
        processor: Likewise.
        rows: Clips with labels; rows without one are skipped and counted.
        out: Folder for the results.
        settings: How to evaluate.
        model_name: For the report.
        manifest_name: For the report.
        on_progress: Called with the number of clips done and of all.

    Returns:
        The content of eval.json.

    Raises:
        ConfigError: There are no rows, a label is not in the label set, no clip is usable, or `out`
            holds the results of another evaluation.
    """
    settings = settings or EvalSettings()
    out = Path(out)
    if not rows:
        raise ConfigError("eval: no rows to evaluate; wanted a manifest with some")
    _check_labels(rows, settings.labels)
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, _fingerprint(model, rows, settings))
    done = _resume(out / PREDICTIONS)
    started, resumed = time.perf_counter(), len(done)
    todo = [i for i in range(len(rows)) if i not in done]
    on_progress(len(done), len(rows))
    with (out / PREDICTIONS).open("a", encoding="utf-8") as file:
        for batch in _predict(model, processor, rows, todo, settings):
            for prediction in batch:
                done[prediction.index] = prediction
                file.write(json.dumps(prediction.to_json()) + "\n")
            file.flush()
            on_progress(len(done), len(rows))
    bare = model.config.answer_style == "bare"
    cues = {i: cues for i, row in enumerate(rows) if (cues := row.cues) is not None}
    predictions = [done[i] for i in range(len(rows))]
    result = {
        "model": model_name,
        "manifest": manifest_name,
        **summarise(predictions, settings.labels, cues, bare=bare),
        "settings": asdict(settings),
        "provenance": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "seconds": round(time.perf_counter() - started, 3),
            "clips_resumed": resumed,
        },
    }
    _write(out / RESULT, result)
    write_report(result, out)
    return result


def _check_labels(rows: Sequence[Row], labels: Sequence[str]) -> None:
    for row in rows:
        if row.label is not None and row.label not in labels:
            raise ConfigError(
                f"eval: {row.path} is labelled {row.label!r}; wanted one of {', '.join(labels)}; "
                "name the manifest's labels with --labels"
            )


def _fingerprint(
    model: EmostreamForCausalLM, rows: Sequence[Row], settings: EvalSettings
) -> dict[str, Any]:
    """What must be the same for predictions to belong to one evaluation; batching need not be."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        total = parameter.detach().double()
        weights.update(f"{name} {total.sum().item()!r} {total.abs().sum().item()!r}".encode())
    clips = hashlib.sha256()
    for row in rows:
        clips.update(f"{row.path.name} {row.label} {row.start_s} {row.end_s}\n".encode())
    chosen = asdict(settings)
    for name in ("batch_size", "loaders"):
        del chosen[name]
    return {"weights": weights.hexdigest(), "clips": clips.hexdigest(), **chosen}


def _claim(out: Path, run: dict[str, Any]) -> None:
    """Write what is evaluated here, or check that it is the same as before."""
    run = json.loads(json.dumps(run))
    path = out / _RUN
    if not path.exists():
        _write(path, run)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON ({error}); evaluate into another --out") from error
    differs = [key for key in run if before.get(key) != run[key]]
    if differs:
        raise ConfigError(
            f"{out}: holds another evaluation (other {', '.join(differs)}); choose another --out"
        )


def _resume(path: Path) -> dict[int, Prediction]:
    """Read earlier predictions; a line cut short by an interruption is taken off the file."""
    if not path.exists():
        return {}
    done: dict[int, Prediction] = {}
    kept = 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        prediction = Prediction.from_json(json.loads(line))
        done[prediction.index] = prediction
        kept += len(line)
    if kept < len(data):
        with path.open("r+b") as file:
            file.truncate(kept)
    return done


def _write(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _predict(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    todo: Sequence[int],
    settings: EvalSettings,
) -> Iterator[list[Prediction]]:
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
