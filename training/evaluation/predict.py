"""A model's predictions on a manifest's clips: label-first under each condition, and reasoned.

Towers and connector run once for each clip, whatever the conditions; the language model runs batches of equally long
prompts, by the code that serves live sources.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from emostream.errors import ConfigError
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaTokens
from emostream.labels import DEFAULT_LABELS, validate_labels
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.clip_encoding import Edit, run_by_shape
from training.data.clip_features import ClipFeatures, computed_features, stored_features
from training.data.features import FeatureStore
from training.data.heard import check_heard
from training.data.manifest import Row
from training.evaluation.outcomes import CONDITIONS
from training.evaluation.results import Prediction


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
        heard_s: How long each actor was heard before, in his other clips of the evaluation, for a model whose audio
            tower is standardised by who speaks; where it is 0, as long as the row says.

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
    heard_s: float = 0.0

    def __post_init__(self) -> None:
        validate_labels(self.labels)
        if unknown := [c for c in self.conditions if c not in CONDITIONS]:
            raise ConfigError(
                f"eval: unknown condition {unknown[0]!r}; wanted some of {', '.join(CONDITIONS)}"
            )
        for name in ("batch_size", "max_new_tokens", "loaders"):
            if getattr(self, name) < 1:
                raise ConfigError(f"eval: {name} is {getattr(self, name)}; wanted 1 or more")
        if not 0 <= self.heard_s < math.inf:
            raise ConfigError(f"eval: heard_s is {self.heard_s}; wanted seconds from 0 on")


def predict(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    todo: Sequence[int],
    settings: EvalSettings,
    store: FeatureStore | None = None,
    edit: Edit | None = None,
) -> Iterator[list[Prediction]]:
    """Yield predictions batch by batch, in the order of `todo`.

    A single clip is not shown under `shuffled_audio`: there is nobody else's sound.

    Args:
        model: From `load_model`, on its device.
        processor: Likewise.
        rows: All clips of the evaluation; shuffled sound is drawn from all of them.
        todo: Indices of the clips to predict.
        settings: How.
        store: Features of `rows` by this model's towers; without it clips are decoded and encoded.
        edit: What is done to each clip before the towers see it; of `store`, only what was heard before is used then.
    """
    if not todo:
        return
    if settings.heard_s:
        rows = [replace(row, heard_s=settings.heard_s) for row in rows]
    check_heard(model.config, rows)
    conditions = [c for c in CONDITIONS if c == "both" or c in settings.conditions]
    if len(rows) < 2:
        conditions = [c for c in conditions if c != "shuffled_audio"]
    partners = _partners(rows, settings.seed) if "shuffled_audio" in conditions else None
    size = settings.batch_size
    clips = (
        stored_features(store, rows, todo, partners)
        if store is not None and edit is None
        else computed_features(
            model,
            processor,
            rows,
            todo,
            partners,
            batch_size=size,
            loaders=settings.loaders,
            edit=edit,
            heard=None if store is None else store.heard,
        )
    )
    predictor = _Predictor(model, processor, conditions, settings)
    while batch := list(itertools.islice(clips, size)):
        yield [
            Prediction(
                index=clip.index,
                path=str(rows[clip.index].path),
                label=str(rows[clip.index].label),
                scores=scores,
                text=text,
                truncated=truncated,
                skipped=clip.problem,
            )
            for clip, (scores, text, truncated) in zip(batch, predictor(batch), strict=True)
        ]


def _partners(rows: Sequence[Row], seed: int) -> list[int]:
    """Whose sound each of several clips gets: the next one's in a random cycle, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(len(rows))
    partners = np.empty(len(rows), int)
    partners[order] = np.roll(order, -1)
    return [int(partner) for partner in partners]


class _Predictor:
    """Scores and answers of a batch of clips: for each of them (scores by condition, text, truncated)."""

    def __init__(
        self,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        conditions: Sequence[str],
        settings: EvalSettings,
    ):
        instruction = settings.instruction or processor.instruction
        self._backbone = model.model
        self._device = model.device
        self._conditions = conditions
        self._reasoning = settings.reasoning
        self._recognizer = Recognizer(
            model,
            processor,
            labels=settings.labels,
            instruction=instruction,
            slots=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
        )
        with torch.inference_mode():
            self._gate_13 = model.model.gate(*processor.gate_inputs(instruction))

    @torch.inference_mode()
    def __call__(
        self, clips: Sequence[ClipFeatures]
    ) -> list[tuple[dict[str, dict[str, float]], str | None, bool]]:
        visual = self._embed("vision_features", [clip.vision for clip in clips])
        sound = self._embed("audio_features", [clip.audio for clip in clips])
        others = self._embed("audio_features", [clip.other for clip in clips])
        scores: list[dict[str, dict[str, float]]] = [{} for _ in clips]
        texts: dict[int, tuple[str, bool]] = {}
        for condition in self._conditions:
            shown = {
                place: tokens
                for place, (clip, *media) in enumerate(
                    zip(clips, visual, sound, others, strict=True)
                )
                if clip.problem is None and (tokens := _shown(condition, *media)) is not None
            }
            results = self._recognizer.read([str(place) for place in shown], list(shown.values()))
            for place, result in zip(shown, results, strict=True):
                scores[place][condition] = result.scores
            if condition == "both" and self._reasoning:
                for result in results:
                    self._recognizer.start_reasoning(result)
                while steps := self._recognizer.reason():
                    texts |= {int(str(s.key)): (s.text, s.truncated) for s in steps if s.done}
        return [(scores[place], *texts.get(place, (None, False))) for place in range(len(clips))]

    def _embed(self, name: str, features: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Tokens (N, H) of each clip; those of one shape go through the connector or projector together."""

        def run(batch: Tensor) -> Tensor:
            gate = self._gate_13.expand(len(batch), -1)
            embedded = self._backbone.embed_media(**{name: batch.to(self._device)}, gate=gate)
            return next(part for part in embedded if part is not None)

        return run_by_shape(run, features)


def _shown(
    condition: str, visual: Tensor | None, sound: Tensor | None, other: Tensor | None
) -> MediaTokens | None:
    """What the model is shown under a condition; None where the clip lacks what it needs."""
    if condition == "both":
        return None if visual is None and sound is None else MediaTokens(visual, sound)
    if condition == "video":
        return None if visual is None else MediaTokens(visual, None)
    if condition == "audio":
        return None if sound is None else MediaTokens(None, sound)
    return None if visual is None or other is None else MediaTokens(visual, other)
