"""`emostream infer`: what the live pipeline should say of a file, worked out in the simplest way.

Each window is encoded whole, with no windower, streaming encoder or shared token tree: every candidate answer is scored
behind the prompt by itself. Slow on purpose, though it reads the file once and holds one window at a time; the live
pipeline is tested against it.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from emostream.answers import compose_answer
from emostream.inference.kv_cache import CACHE_ARGUMENT
from emostream.inference.voices import Voices, voices_of
from emostream.media import MediaStats
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from emostream.people.presence import Attendance
from emostream.people.voice_baseline import VoiceStretch
from stream.commands.file_windows import file_windows
from stream.pubsub.messages import Label, Latency, encode
from stream.pubsub.messages import Window as Stretch
from stream.pubsub.recording import RecordingError
from stream.windows.attendance import Attendant
from stream.windows.config import InferenceConfig
from stream.windows.person_names import check_person_names
from stream.windows.presence_fields import NOBODY, presence_fields, track_of
from stream.windows.smoothing import Rolling
from stream.windows.voice import voice_stretch
from stream.windows.window import Window

SESSION = "infer"


def infer(
    path: str | Path,
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    config: InferenceConfig,
    labels: tuple[str, ...],
    *,
    source: str,
    audio_track: int | None = None,
    stats: MediaStats | None = None,
    voices: Voices | None = None,
) -> Iterator[Label]:
    """Label messages of a file, with the window ids that the live pipeline gives them.

    Args:
        path: Video, audio or both.
        model: From `load_model`.
        processor: Likewise.
        config: Windows and smoothing, as the live pipeline's.
        labels: Label list.
        source: Name in the messages; of several people, of the first.
        audio_track: Which of several sound tracks, from 1; None takes the best one with sound in it.
        stats: Where to count, and to note for people, what reading meets.
        voices: What is known of people before, if the model gets to know their voices; nothing if None.

    Raises:
        MediaError: The file cannot be read.
        ConfigError: So many people of the source cannot have names.
    """
    check_person_names([source], config.people)
    stats = MediaStats() if stats is None else stats
    voices = voices or voices_of(model)
    windows = file_windows(
        path,
        config,
        source=source,
        audio_track=audio_track,
        most_samples=processor.context_samples(),
        stats=stats,
    )
    attendant = Attendant(model.config, config.people) if config.people else None
    judged: dict[str, _Judged] = {}
    nobody = 0
    for window in windows:
        if window.lost:
            continue
        people = [(window, None)] if attendant is None else attendant.attend(window)
        shown = [(seen, found) for seen, found in people if not seen.lost]
        nobody += not shown
        for seen, found in shown:
            if seen.source not in judged:
                judged[seen.source] = _Judged(Rolling(config.smoothing_s, config.hysteresis))
            yield judged[seen.source].label(
                seen, found, model, processor, labels, config.model_name, voices
            )
    if nobody:
        stats.note(f"no label for {nobody} window{'s' * (nobody != 1)}: {NOBODY}")
    elif not judged:
        stats.note("of every window, more than half of the picture and of the sound is missing")


@dataclass
class _Judged:
    """What goes on from label to label of one person."""

    rolling: Rolling
    seq: int = 0

    def label(
        self,
        window: Window,
        found: Attendance | None,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        labels: tuple[str, ...],
        model_name: str,
        voices: Voices | None,
    ) -> Label:
        begun_s = time.perf_counter()
        frames = [frame.rgb for frame in window.frames]
        voice = voice_stretch(window, found)
        scores, baseline_s = _scores(
            model, processor, labels, frames, window.pcm, window.source, voice, voices
        )
        spent_ms = 1e3 * (time.perf_counter() - begun_s)
        self.seq += 1
        return Label(
            session=SESSION,
            seq=self.seq - 1,
            source=window.source,
            timestamp_s=window.end_s,
            unix_time_s=None,
            published_s=time.time(),
            window=Stretch(id=window.id, start_s=window.start_s, end_s=window.end_s),
            label=max(scores, key=scores.__getitem__),
            scores=scores,
            smoothed=self.rolling.update(window.end_s, scores, track_of(found)),
            modalities=window.modalities,
            frames_used=window.frames_used,
            audio_gap_ms=window.audio_gap_ms,
            av_skew_ms=window.av_skew_ms,
            dropped=window.dropped,
            latency_ms=Latency(
                capture=0.0, queue=0.0, encode=0.0, prefill=spent_ms, decode=0.0, total=spent_ms
            ),
            model=model_name,
            baseline_s=baseline_s,
            **presence_fields(found),
        )


def write_labels(labels: Iterable[Label], out: Path) -> int:
    """Write messages to a JSONL file, a line each; returns how many. `out` appears when it is complete.

    Raises:
        RecordingError: The file cannot be written.
    """
    partial = out.with_name(f".{out.name}.partial")
    count = 0
    try:
        with partial.open("wb") as file:
            for label in labels:
                file.write(encode(label)[1] + b"\n")
                count += 1
        partial.replace(out)
    except OSError as error:
        raise RecordingError(f"cannot write {out}: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


@torch.inference_mode()
def _scores(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    labels: tuple[str, ...],
    frames: Sequence[NDArray[np.uint8]],
    audio: NDArray[np.float32] | None,
    source: str,
    voice: VoiceStretch,
    voices: Voices | None,
) -> tuple[dict[str, float], float | None]:
    """Each candidate behind the prompt in a pass of its own; summed log-probability behind what all share.

    And how much of the person's speech was heard before.
    """
    # A stream may change its size within a window: each frame is squared by itself, as live.
    squared = [processor.pixels(frame[None]) for frame in frames]
    stand_in = np.zeros((len(frames), 1, 1, 3), np.uint8) if frames else None
    inputs = processor(frames=stand_in, audio=audio)
    if squared:
        inputs["pixel_values_videos"] = torch.cat(squared)[None]
    baseline_s = None if voices is None else voices.heard_s(source, voice)
    inputs = inputs.to(model.device)
    if voices is not None and (mel_1FM := inputs.pop("input_features", None)) is not None:
        x_1SD = model.model.audio_tower.encode(mel_1FM)
        tokens, [baseline_s] = voices.tokens([source], [voice], mel_1FM.cpu(), x_1SD)
        inputs["audio_embeds"] = tokens
    cache = DynamicCache(config=model.config)
    first = model(**inputs, use_cache=True, logits_to_keep=1, **{CACHE_ARGUMENT: cache}).logits
    candidates = [_candidate(processor, label, model.config.answer_style) for label in labels]
    shared = 0
    while (
        all(len(ids) > shared for ids in candidates)
        and len({ids[shared] for ids in candidates}) == 1
    ):
        shared += 1
    totals = []
    for ids in candidates:
        tokens = torch.tensor([ids], device=model.device)
        rest = model(input_ids=tokens, use_cache=True, **{CACHE_ARGUMENT: cache}).logits
        cache.crop(-len(ids))
        logits: Tensor = torch.cat((first, rest[:, :-1]), 1)[0].float()
        picked = logits.log_softmax(-1).gather(1, tokens[0][:, None])[:, 0]
        totals.append(picked[shared:].sum())
    score_L = torch.stack(totals) / model.config.label_temperature
    probabilities = score_L.softmax(0).tolist()
    return dict(zip(labels, probabilities, strict=True)), baseline_s


def _candidate(processor: EmostreamProcessor, label: str, style: str) -> list[int]:
    tokenizer = processor.tokenizer
    if style == "bare":
        return [*tokenizer.encode(label, add_special_tokens=False), tokenizer.eos_token_id]
    return list(tokenizer.encode(compose_answer("", label), add_special_tokens=False))
