"""What evaluation shows a model: tower features of each clip and of the sound that it is given under `shuffled_audio`.

They come from a `FeatureStore`, or clips are decoded and go through the towers now.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.clip_encoding import (
    DecodedClip,
    Edit,
    computed_ahead,
    decode_clip,
    encode_clips,
    report_cut,
    standardised_by,
)
from training.data.features import FeatureStore
from training.data.heard import HeardBefore, Voice
from training.data.manifest import Row


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """Features of a clip, or why there are none.

    Attributes:
        index: The row's number.
        vision: (T, L, D); None without pictures.
        audio: (A, E); None without sound.
        other: (A, E) of another clip's sound; None if none is wanted or it has none.
        problem: Why the clip cannot be used.
    """

    index: int
    vision: Tensor | None = None
    audio: Tensor | None = None
    other: Tensor | None = None
    problem: str | None = None


def stored_features(
    store: FeatureStore,
    rows: Sequence[Row],
    todo: Sequence[int],
    partners: Sequence[int] | None,
) -> Iterator[ClipFeatures]:
    """Read clips from a store.

    Args:
        store: Holds all of `rows` that can be decoded.
        rows: All clips of the evaluation.
        todo: Indices of the clips wanted, in this order.
        partners: Whose sound each clip is given beside its own.
    """
    for index in todo:
        row = rows[index]
        if row.label is None:
            yield ClipFeatures(index, problem="no label")
        elif row not in store:
            yield ClipFeatures(index, problem=f"unreadable: {store.problem(row)}")
        else:
            own, other = store.features(row), None
            if partners is not None and (partner := rows[partners[index]]) in store:
                other = store.features(partner).get("audio_features")
            yield ClipFeatures(index, own.get("vision_features"), own.get("audio_features"), other)


def computed_features(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    todo: Sequence[int],
    partners: Sequence[int] | None,
    *,
    batch_size: int,
    loaders: int,
    edit: Edit | None = None,
    heard: HeardBefore | None = None,
) -> Iterator[ClipFeatures]:
    """Decode clips on threads, at most two batches ahead of the towers, which take a batch at once.

    Whose actor is to have been heard before is, of what its other clips among `rows` tell; those are decoded and
    encoded for it, once each.

    Args:
        model: On its device.
        processor: Its processor.
        rows: All clips of the evaluation.
        todo: Indices of the clips wanted, in this order.
        partners: Whose sound each clip is given beside its own.
        batch_size: Clips at once.
        loaders: Threads that decode.
        edit: What is done to each clip before the towers see it; what was heard before stays as it was.
        heard: What is known of the actors already; worked out if None.
    """

    def decode(index: int) -> tuple[int, DecodedClip, DecodedClip]:
        """The clip, and whatever holds the sound that it is given beside its own."""
        row = rows[index]
        if row.label is None:
            return index, DecodedClip(row, problem="no label"), DecodedClip(row)
        clip = decode_clip(processor, row, model.config, edit=edit)
        if clip.problem:
            return index, DecodedClip(row, problem=f"unreadable: {clip.problem}"), DecodedClip(row)
        if partners is None:
            return index, clip, DecodedClip(row)
        # A partner that cannot be decoded is counted where it is evaluated itself.
        partner = rows[partners[index]]
        return index, clip, decode_clip(processor, partner, model.config, {"audio"})

    def voice_of(row: Row) -> Voice | None:
        clip = decode_clip(processor, row, model.config, {"audio"})
        [found] = encode_clips(model, [clip])
        return Voice(found["voice"].cpu(), clip.spoken_s) if "voice" in found else None

    heard = heard or HeardBefore(rows, voice_of)
    decoded = computed_ahead(decode, todo, threads=loaders, ahead=2 * batch_size)
    cut = 0
    while batch := list(itertools.islice(decoded, batch_size)):
        cut += sum(clip.cut_s > 0 for _, clip, _ in batch)
        # What cannot be decoded holds neither pictures nor sound, so it costs nothing here.
        own = encode_clips(model, [clip for _, clip, _ in batch])
        others = encode_clips(model, [other for _, _, other in batch])
        for (index, clip, other), mine, theirs in zip(batch, own, others, strict=True):
            for whose, found in ((clip.row, mine), (other.row, theirs)):
                if "voice" in found:
                    found["audio"] = standardised_by(
                        found["audio"],
                        found["voice"],
                        heard.baseline(whose),
                        model.model.voice_heads,
                    )
            yield ClipFeatures(
                index, mine.get("vision"), mine.get("audio"), theirs.get("audio"), clip.problem
            )
    report_cut(cut, len(todo), processor)
