"""`emostream infer`: what the live pipeline should say of a file, worked out in the simplest way.

Each window is decoded and encoded whole, with no windower, streaming encoder or shared token tree: every candidate
answer is scored behind the prompt by itself. Slow on purpose; the live pipeline is tested against it.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from emostream.answers import compose_answer
from emostream.inference.kv_cache import CACHE_ARGUMENT
from emostream.media import TimedFrame, iter_frames, iter_pcm, probe, read_audio
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import SAMPLE_RATE_HZ, EmostreamProcessor
from emostream.sampling import grid_frames, grid_index, grid_time
from stream.pubsub.messages import Dropped, Label, Latency, Modalities, Presence, Window, encode
from stream.pubsub.recording import RecordingError
from stream.windows.config import InferenceConfig
from stream.windows.smoothing import Rolling

SESSION = "infer"
TOLERATED_S = 0.001  # of silence: joints between audio packets are rounded to samples


def infer(
    path: str | Path,
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    config: InferenceConfig,
    labels: tuple[str, ...],
    *,
    source: str,
) -> Iterator[Label]:
    """Label messages of a file, with the window ids that the live pipeline gives them.

    Args:
        path: Video, audio or both.
        model: From `load_model`.
        processor: Likewise.
        config: Windows and smoothing, as the live pipeline's.
        labels: Label list.
        source: Name in the messages.

    Raises:
        MediaError: The file cannot be read.
    """
    info = probe(path)
    rolling = Rolling(config.smoothing_s, config.hysteresis)
    audio_end_s = -math.inf
    if info.audio is not None:
        audio_end_s = max((chunk.end_s for chunk in iter_pcm(path)), default=-math.inf)
    pictures = _windows_of_frames(path, config) if info.video is not None else iter(())
    frames_end_s, index, seq = -math.inf, config.num_frames, 0
    while True:
        chosen = next(pictures, None)
        if chosen is not None:
            frames_end_s = chosen.newest_s
        over = chosen is None or chosen.last
        if over and index > _last_window(max(frames_end_s, audio_end_s), config):
            return
        begun_s = time.perf_counter()
        end_s = grid_time(index, config.step_s)
        start_s = end_s - config.window_s
        shown = None if chosen is None else chosen.at(index)
        audio, gap_s = None, config.window_s
        if info.audio is not None:
            heard = read_audio(path, start_s, end_s)
            audio, gap_s = heard.pcm, heard.missing_samples / SAMPLE_RATE_HZ
        modalities = Modalities(
            video=_presence(
                config.num_frames if shown is None else shown.repeated, config.num_frames
            ),
            audio=_presence(0.0 if gap_s <= TOLERATED_S else gap_s, config.window_s),
        )
        if modalities.video == "missing":
            shown = None
        if modalities.audio == "missing":
            audio = None
        if shown is not None or audio is not None:
            frames = None if shown is None else shown.frames
            scores = _scores(model, processor, labels, frames, audio)
            spent_ms = 1e3 * (time.perf_counter() - begun_s)
            yield Label(
                session=SESSION,
                seq=seq,
                source=source,
                timestamp_s=end_s,
                unix_time_s=None,
                published_s=time.time(),
                window=Window(id=index, start_s=start_s, end_s=end_s),
                label=max(scores, key=scores.__getitem__),
                scores=scores,
                smoothed=rolling.update(end_s, scores),
                modalities=modalities,
                frames_used=0 if shown is None else shown.distinct,
                audio_gap_ms=1e3 * gap_s,
                av_skew_ms=None,
                dropped=Dropped(frames=0, audio_ms=0.0, windows=0),
                latency_ms=Latency(
                    capture=0.0,
                    queue=0.0,
                    encode=0.0,
                    prefill=spent_ms,
                    decode=0.0,
                    total=spent_ms,
                ),
                model=config.model_name,
            )
            seq += 1
        index += config.hop_steps


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


@dataclass(frozen=True, slots=True)
class _Shown:
    """The frames of one window.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, oldest first.
        repeated: Grid points among them that have no frame of their own.
        distinct: How many different frames they are.
    """

    frames: NDArray[np.uint8]
    repeated: int
    distinct: int


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Frames at hand when a window is due."""

    frames: tuple[TimedFrame, ...]
    newest_s: float
    last: bool
    config: InferenceConfig

    def at(self, index: int) -> _Shown | None:
        """What the window that ends at a grid point shows; None if nothing is as early as that."""
        count = self.config.num_frames
        choice = grid_frames(
            [frame.time_s for frame in self.frames], index - count + 1, count, self.config.step_s
        )
        if choice.indices[-1] < 0:
            return None
        return _Shown(
            np.stack([self.frames[i].rgb for i in choice.indices]),
            repeated=int(choice.repeated.sum()),
            distinct=len(set(choice.indices.tolist())),
        )


def _windows_of_frames(path: str | Path, config: InferenceConfig) -> Iterator[_Pictures]:
    """One entry a window; the last is given again and again, for windows of sound alone."""
    held: deque[TimedFrame] = deque()
    index = config.num_frames
    for frame in iter_frames(path):
        cell = grid_index(frame.time_s, config.step_s)
        while cell > index:
            yield _Pictures(tuple(held), frame.time_s, False, config)
            index += config.hop_steps
        held.append(frame)
        # One frame from before the window may have to stand in.
        oldest = index - config.num_frames
        while len(held) > 1 and grid_index(held[1].time_s, config.step_s) <= oldest:
            held.popleft()
    while held:
        yield _Pictures(tuple(held), held[-1].time_s, True, config)


def _last_window(newest_s: float, config: InferenceConfig) -> int:
    """The window whose end is nearest to the end of the data; the first one at least, unless there is no data."""
    if newest_s == -math.inf:
        return config.num_frames - 1
    nearest = math.floor(newest_s / config.step_s + 0.5)
    hops = max(0, (nearest - config.num_frames) // config.hop_steps)
    return config.num_frames + hops * config.hop_steps


def _presence(missing: float, of: float) -> Presence:
    if 2 * missing > of:
        return "missing"
    return "degraded" if missing > 0 else "ok"


@torch.inference_mode()
def _scores(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    labels: tuple[str, ...],
    frames: NDArray[np.uint8] | None,
    audio: NDArray[np.float32] | None,
) -> dict[str, float]:
    """Each candidate behind the prompt in a pass of its own; summed log-probability behind what all share."""
    inputs = processor(frames=frames, audio=audio).to(model.device)
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
    probabilities = torch.stack(totals).softmax(0).tolist()
    return dict(zip(labels, probabilities, strict=True))


def _candidate(processor: EmostreamProcessor, label: str, style: str) -> list[int]:
    tokenizer = processor.tokenizer
    if style == "bare":
        return [*tokenizer.encode(label, add_special_tokens=False), tokenizer.eos_token_id]
    return list(tokenizer.encode(compose_answer("", label), add_special_tokens=False))
