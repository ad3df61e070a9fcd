"""Clips on their way through the frozen towers: decoded on threads a little ahead, encoded in batches."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emostream.errors import MediaError
from emostream.media import Modality, load_clip
from emostream.media.info import BOTH, SHORT_S
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from emostream.model.towers import VoiceHeads, pool_audio
from emostream.people import voice_baseline
from emostream.people.clips import STEP_S, ShownClip, shown_clip
from emostream.people.voice_baseline import VoiceBaseline
from emostream.sampling import SAMPLE_RATE_HZ
from training.data.manifest import Row
from training.data.stills import still_frames

logger = logging.getLogger(__name__)

Given = TypeVar("Given")
Found = TypeVar("Found")

Edit = Callable[
    [Row, NDArray[np.uint8] | None, NDArray[np.float32] | None],
    tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None],
]
"""Another clip in place of the one decoded: row, frames (T, H, W, 3) and pcm (S,) -> both, None where there is none."""


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A clip as the towers take it, or why it cannot be had.

    Attributes:
        row: The clip's row.
        pixels: (T, 3, S, S) float32 in [-1, 1]; None without pictures.
        mel: (F, M) float32 log-mel; None without sound.
        problem: Why there is neither.
        cut_s: Seconds of sound, the oldest, that the model's context has no room for.
        speech: (S,) float32, which encoder steps are speech, for an audio tower that is standardised; None for others.
    """

    row: Row
    pixels: Tensor | None = None
    mel: Tensor | None = None
    problem: str | None = None
    cut_s: float = 0.0
    speech: Tensor | None = None

    @property
    def spoken_s(self) -> float:
        """Seconds of speech."""
        return 0.0 if self.speech is None else float(self.speech.sum()) * voice_baseline.STEP_S


def decode_clip(
    processor: EmostreamProcessor,
    row: Row,
    config: EmostreamConfig,
    need: Collection[Modality] = BOTH,
    edit: Edit | None = None,
) -> DecodedClip:
    """Decode and preprocess a row's clip; of sound that is too long for the model, the newest is kept.

    A row that ends more than half a second behind its clip is a problem. So is, for a checkpoint that is shown a face,
    a clip in which nobody is seen or heard. A still is shown by `stills.still_frames`; a part of a picture is a face
    that was cut out already.

    Args:
        processor: The model's.
        row: The clip.
        config: Of the checkpoint: how many frames it takes, and what it is shown of them.
        need: Modalities to decode.
        edit: What is done to the clip before anything is cut out of it.
    """
    if row.is_still:
        return _decode_still(processor, row, config, edit)
    try:
        clip = load_clip(row.path, config.num_frames, row.start_s, row.end_s, need=need)
    except MediaError as error:
        place = f"{row.where}: " if row.where and row.start_s else ""
        return DecodedClip(row, problem=f"{place}{error}")
    if said := row.ends_behind(clip.info.duration_s, SHORT_S):
        # Some containers only guess at their length; sound that is there is there.
        heard = clip.audio is not None and clip.missing_samples < SHORT_S * SAMPLE_RATE_HZ
        if not heard:
            return DecodedClip(row, problem=said)
    limit = processor.context_samples()
    frames, sound = clip.frames, clip.audio
    if edit is not None:
        frames, sound = edit(row, frames, sound)
    # Cut here, since `mel` warns of each clip.
    audio = None if sound is None else sound[-limit:]
    spoken = None
    if config.frame_crop == "face":
        shown = _shown(config, frames, clip.frame_times_s.tolist(), audio)
        frames, audio, spoken = shown.frames, shown.audio, shown.spoken
        if problem := _nobody(row, shown):
            return DecodedClip(row, problem=problem)
    mel = None if audio is None else processor.mel(audio)
    return DecodedClip(
        row,
        None if frames is None else processor.pixels(frames),
        mel,
        cut_s=0.0 if audio is None or sound is None else (len(sound) - len(audio)) / SAMPLE_RATE_HZ,
        speech=None
        if mel is None or not config.standardises_voices
        else voice_baseline.speech_of(mel, spoken),
    )


def _decode_still(
    processor: EmostreamProcessor, row: Row, config: EmostreamConfig, edit: Edit | None
) -> DecodedClip:
    try:
        frames: NDArray[np.uint8] | None = still_frames(row, config.num_frames)
    except MediaError as error:
        return DecodedClip(row, problem=str(error))
    if edit is not None:
        frames, _ = edit(row, frames, None)
    if config.frame_crop == "face" and row.region is None:
        times_s = [STEP_S * place for place in range(config.num_frames)]
        shown = _shown(config, frames, times_s, None)
        frames = shown.frames
        if problem := _nobody(row, shown):
            return DecodedClip(row, problem=problem)
    return DecodedClip(row, None if frames is None else processor.pixels(frames))


def _shown(
    config: EmostreamConfig,
    frames: NDArray[np.uint8] | None,
    times_s: Sequence[float],
    audio: NDArray[np.float32] | None,
) -> ShownClip:
    return shown_clip(
        frames,
        times_s,
        audio,
        size_px=config.vision_config.image_size,
        margin=config.crop_margin,
    )


def _nobody(row: Row, shown: ShownClip) -> str | None:
    """Why a checkpoint that is shown a face neither sees nor hears anything of a clip."""
    if shown.frames is not None or shown.audio is not None:
        return None
    return f"{row.path}: {', '.join(filter(None, (shown.absent.video, shown.absent.audio)))}"


def report_cut(cut: int, count: int, processor: EmostreamProcessor) -> None:
    """Say, if so, how many clips have more sound than the model hears.

    Args:
        cut: Of how many clips the oldest sound was cut off.
        count: Of how many in all.
        processor: The model's.
    """
    if cut:
        heard_s = processor.context_samples() / SAMPLE_RATE_HZ
        logger.warning(
            "%d of %d clips have more sound than the model hears; it is given their last %g s",
            cut,
            count,
            heard_s,
        )


def computed_ahead(
    function: Callable[[Given], Found], items: Iterable[Given], *, threads: int, ahead: int
) -> Iterator[Found]:
    """Results in the order of `items`, computed on threads.

    Args:
        function: What makes a result of an item.
        items: Taken as there is room for them.
        threads: How many threads compute.
        ahead: Most results, finished or not, beyond the one that is waited for.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="clips") as pool:
        begun: deque[Future[Found]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(function, item))
                if len(begun) > ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


@torch.inference_mode()
def encode_clips(
    model: EmostreamForCausalLM, clips: Sequence[DecodedClip]
) -> list[dict[str, Tensor]]:
    """`vision` (T, L, D) and `audio` (A, E) features of each clip, those that it has.

    Sound is standardised over everybody where the audio tower is; then there is `voice` (2, E) too, float32: mean and
    variance of what is standardised over the clip's speech, zeros if it has none. `standardised_by` takes both.
    """
    towers, device, dtype = model.model, model.device, model.dtype
    vision = run_by_shape(
        lambda batch: towers.vision(batch.to(device, dtype)), [clip.pixels for clip in clips]
    )
    steps = run_by_shape(
        lambda batch: towers.audio_tower(batch.to(device, dtype)), [clip.mel for clip in clips]
    )
    out = []
    for clip, pictures, sound in zip(clips, vision, steps, strict=True):
        found = {} if pictures is None else {"vision": pictures}
        if sound is not None:
            found["audio"] = pool_audio(sound[None])[0]
            if clip.speech is not None:
                weight_1S = clip.speech.to(device)[None]
                found["voice"] = torch.stack(voice_baseline.moments(sound.float()[None], weight_1S))
        out.append(found)
    return out


def standardised_by(
    audio_AE: Tensor, voice_2E: Tensor, person: VoiceBaseline, heads: VoiceHeads | None = None
) -> Tensor:
    """Features of sound that are standardised over everybody, standardised by what is known of a person instead.

    Args:
        audio_AE: (A, E), as `encode_clips` gives it.
        voice_2E: Likewise.
        person: His `voice`s in the same units; an empty baseline changes nothing.
        heads: Of the model, if it has any.

    Returns:
        (A, E + K), what the audio projector takes.
    """
    voice_2E = voice_standardised_by(voice_2E, person).to(audio_AE.device)
    if person.heard_s:
        mean, std = person.blended(torch.zeros(()), torch.ones(()))
        mean, std = mean.to(audio_AE.device), std.to(audio_AE.device)
        audio_AE = ((audio_AE.float() - mean) / std).to(audio_AE.dtype)
    if heads is None:
        return audio_AE
    with torch.no_grad():
        return heads.beside(audio_AE[None], *voice_2E[:, None])[0]


def voice_standardised_by(voice_2E: Tensor, person: VoiceBaseline) -> Tensor:
    """(2, E) mean and variance of a clip's speech, standardised by what is known of a person; zeros if it has none."""
    if not person.heard_s or not (voice_2E[1] > 0).any():
        return voice_2E
    mean, std = (known.to(voice_2E) for known in person.blended(torch.zeros(()), torch.ones(())))
    return torch.stack([(voice_2E[0] - mean) / std, voice_2E[1] / std**2])


def run_by_shape(
    run: Callable[[Tensor], Tensor], values: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """What a network makes of each value, run once on all that are of one shape; None stays None.

    Args:
        run: (B, …) -> (B, …).
        values: One for each place of a batch.
    """
    out: list[Tensor | None] = [None] * len(values)
    alike: dict[torch.Size, list[int]] = {}
    for index, value in enumerate(values):
        if value is not None:
            alike.setdefault(value.shape, []).append(index)
    for members in alike.values():
        batch = torch.stack([values[index] for index in members])  # type: ignore[misc]
        for index, value in zip(members, run(batch), strict=True):
            out[index] = value
    return out
