"""What frozen towers make of clips, computed once and read from disk ever after.

    folder/<towers>/            one folder for each set of towers, by a hash of weights and preprocessing
        towers.json             what the hash stands for
        <shard>.json            the clips of a shard; written last, so that a shard is whole or not there
        <shard>.vision.npy      (N, T, L, D) of those that have pictures
        <shard>.audio.npy       (N, A, E) of those that have sound, standardised over everybody where the tower is
        <shard>.voice.npy       (N, 2, E) float32, mean and variance of that over speech, where the tower is

Shards have random names and are never changed, so several processes may fill one folder. Features of
other towers, of another number of frames or of a file that has changed since are not found and made anew.
"""

import copy
import functools
import hashlib
import itertools
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emostream.errors import ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from emostream.model.towers import VoiceHeads
from emostream.sampling import SAMPLE_RATE_HZ
from training.data.clip_encoding import (
    computed_ahead,
    decode_clip,
    encode_clips,
    report_cut,
    standardised_by,
    voice_standardised_by,
)
from training.data.heard import HeardBefore, Voice, check_heard
from training.data.manifest import Key, Row, clip_key

DTYPES: Final = ("float16", "float32")
MODALITIES: Final = ("vision", "audio")
_ARRAYS: Final = (*MODALITIES, "voice")
_SHARD_BYTES: Final = 128 * 2**20
_SHARD_CLIPS: Final = 512
_OPEN_ARRAYS: Final = 256  # each holds a file descriptor
_THREADS: Final = 2  # that decode clips

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a clip's features lie: shard without suffix, row in each array; what was cut off, how much is speech."""

    shard: str
    rows: dict[str, int | None]
    cut_s: float = 0.0
    spoken_s: float = 0.0


class FeatureStore:
    """Read access to the features of clips; `heard` is what they tell of their actors' voices.

    Args:
        places: Key of a clip -> where its features lie.
        problems: Key of a clip that has none -> why.
        rows: Whose clips they are, which tell of their actors' voices.
        heads: Of the model, if it has any.
    """

    def __init__(
        self,
        places: dict[Key, _Place],
        problems: dict[Key, str] | None = None,
        rows: Iterable[Row] = (),
        heads: VoiceHeads | None = None,
    ):
        self._places = places
        self._problems = problems or {}
        self._heads = heads
        self.heard = HeardBefore(rows, self._voice)
        self._array = functools.lru_cache(maxsize=_OPEN_ARRAYS)(_open_array)

    def __contains__(self, row: Row) -> bool:
        return clip_key(row) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def problem(self, row: Row) -> str | None:
        """Why a clip has no features; None if it has."""
        return self._problems.get(clip_key(row))

    def usable(self, rows: Iterable[Row]) -> list[Row]:
        """Those rows that have features, in order."""
        return [row for row in rows if row in self]

    def features(self, row: Row) -> dict[str, Tensor]:
        """Features of a clip: `vision_features` (T, L, D), `audio_features` (A, E + K); one that it lacks is absent.

        Sound is standardised by what was heard of the row's actor for `heard_s` before, where it says so.

        Raises:
            ConfigError: The clip has none.
        """
        place = self._place(row)
        found = {}
        for name in MODALITIES:
            if (index := place.rows[name]) is not None:
                # A copy: torch has no tensors that cannot be written.
                found[f"{name}_features"] = torch.from_numpy(
                    np.array(self._array(place.shard, name)[index])
                )
        sound, voice = found.get("audio_features"), self._voice(row)
        if sound is not None and voice is not None:
            found["audio_features"] = standardised_by(
                sound, voice.moments, self.heard.baseline(row), self._heads
            )
        return found

    def lengths(self, row: Row) -> dict[str, int]:
        """Length of each of a clip's features; they are not read.

        Raises:
            ConfigError: The clip has none.
        """
        place = self._place(row)
        return {
            f"{name}_features": self._array(place.shard, name).shape[1]
            for name in MODALITIES
            if place.rows[name] is not None
        }

    def _place(self, row: Row) -> _Place:
        place = self._places.get(clip_key(row))
        if place is None:
            reason = self.problem(row) or "it is not in the store; cache it first"
            raise ConfigError(f"features: {row.path} has none: {reason}")
        return place

    def voice(self, row: Row) -> Tensor | None:
        """(2, E) float32 mean and variance of a clip's speech, standardised likewise; None without sound."""
        voice = self._voice(row)
        if voice is None:
            return None
        return voice_standardised_by(voice.moments, self.heard.baseline(row))

    def heard_s(self, row: Row) -> float:
        """Seconds of speech of its actor's other clips that a row's sound is standardised by; 0 for none."""
        return self.heard.baseline(row).heard_s

    def _voice(self, row: Row) -> Voice | None:
        place = self._places.get(clip_key(row))
        if place is None or (index := place.rows["voice"]) is None:
            return None
        moments = torch.from_numpy(np.array(self._array(place.shard, "voice")[index]))
        return Voice(moments, place.spoken_s)


def cache_features(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    folder: str | Path,
    *,
    batch_size: int = 8,
    dtype: str = "float16",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStore:
    """Run the towers over all clips that the folder does not hold yet; an interrupted call continues.

    Clips are decoded as evaluation decodes them. One that cannot be decoded is left out; see `FeatureStore.problem`.

    What is kept of a clip is the same however long its actor was heard before: `heard_s` of the row that
    `FeatureStore.features` is asked for decides, so that the same clip may stand among `rows` at 0 and at 120 s
    (`dataclasses.replace(row, heard_s=120.0)`), or only in what is asked for. The actor's other clips are those
    among `rows`.

    Args:
        model: Whose SigLIP and Whisper run, on its device and in its dtype.
        processor: Its processor.
        rows: Clips; one that stands there twice is encoded once. With `heard_s`, and `actor`, where the audio tower is
            standardised by who speaks.
        folder: Where features are kept; several towers may share it.
        batch_size: Clips at once.
        dtype: `float16`, or `float32` at twice the size.
        on_progress: Called with the number of clips done and of all.

    Returns:
        The features of `rows`.

    Raises:
        ConfigError: `dtype` is unknown, or a feature does not fit it; a row has `heard_s`, and the audio tower is not
            standardised, or no row has an actor.
    """
    check_heard(model.config, rows)
    if dtype not in DTYPES:
        raise ConfigError(f"features: dtype is {dtype!r}; wanted {' or '.join(DTYPES)}")
    identity = {**_describe(model, processor), "dtype": dtype}
    home = Path(folder) / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]
    home.mkdir(parents=True, exist_ok=True)
    _write_json(home / "towers.json", identity)
    wanted = {clip_key(row): row for row in rows}
    places = _known(home, wanted, processor, voices=model.config.standardises_voices)
    problems: dict[Key, str] = {}
    todo = [row for key, row in wanted.items() if key not in places]
    on_progress(len(places), len(wanted))
    shard = _Shard(home, dtype)
    clips = computed_ahead(
        lambda row: decode_clip(processor, row, model.config),
        todo,
        threads=_THREADS,
        ahead=8 * _THREADS,
    )
    while batch := list(itertools.islice(clips, batch_size)):
        good = [clip for clip in batch if clip.problem is None]
        problems |= {clip_key(clip.row): clip.problem for clip in batch if clip.problem}
        for clip, features in zip(good, encode_clips(model, good), strict=True):
            arrays = {name: value.float().cpu().numpy() for name, value in features.items()}
            shard.add(clip.row, arrays, clip.cut_s, clip.spoken_s)
        if shard.full:
            places |= shard.write()
        on_progress(len(places) + len(shard) + len(problems), len(wanted))
    places |= shard.write()
    report_cut(sum(place.cut_s > 0 for place in places.values()), len(wanted), processor)
    heads = model.model.voice_heads
    return FeatureStore(
        places, problems, rows, None if heads is None else copy.deepcopy(heads).to("cpu")
    )


class _Shard:
    """Clips that are encoded and not yet written."""

    def __init__(self, home: Path, dtype: str):
        self._home, self._dtype = home, dtype
        self._clips: list[dict[str, Any]] = []
        self._arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in _ARRAYS}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def full(self) -> bool:
        return self._bytes >= _SHARD_BYTES or len(self) >= _SHARD_CLIPS

    def add(
        self, row: Row, features: dict[str, NDArray[Any]], cut_s: float, spoken_s: float
    ) -> None:
        path, start_s, end_s, *region = clip_key(row)
        clip: dict[str, Any] = {"path": path, "start_s": start_s, "end_s": end_s}
        if region:
            clip["region"] = region[0]
        clip |= {"stamp": _stamp(path), "cut_s": cut_s, "spoken_s": spoken_s}
        for name in _ARRAYS:
            clip[name] = None
            if name not in features:
                continue
            with np.errstate(over="ignore"):
                array = features[name].astype("float32" if name == "voice" else self._dtype)
            if not np.isfinite(array).all():
                peak = float(np.abs(features[name]).max())
                raise ConfigError(
                    f"features: the {name} tower gives {peak:g} for {path}, which {self._dtype} cannot hold; "
                    + ("check the checkpoint" if not np.isfinite(peak) else "store float32")
                )
            clip[name] = len(self._arrays[name])
            self._arrays[name].append(array)
            self._bytes += array.nbytes
        self._clips.append(clip)

    def write(self) -> dict[Key, _Place]:
        """Write what there is and start anew; where it lies."""
        if not self._clips:
            return {}
        shard = self._home / secrets.token_hex(8)
        for name, arrays in self._arrays.items():
            if arrays:
                part = shard.with_suffix(f".{name}.part")
                with part.open("wb") as file:
                    np.save(file, np.stack(arrays), allow_pickle=False)
                part.replace(shard.with_suffix(f".{name}.npy"))
        _write_json(shard.with_suffix(".json"), self._clips)
        places = {_key(clip): _place(shard, clip) for clip in self._clips}
        self._clips, self._bytes = [], 0
        self._arrays = {name: [] for name in _ARRAYS}
        return places


def _known(
    home: Path, wanted: dict[Key, Row], processor: EmostreamProcessor, *, voices: bool
) -> dict[Key, _Place]:
    """Where the wanted clips lie that are there already, as long as their files are what they were.

    What is damaged, or may hold the oldest sound of a clip in place of the newest, or lacks the `voices` that are
    wanted, is passed over.
    """
    places: dict[Key, _Place] = {}
    context_s = processor.context_samples() / SAMPLE_RATE_HZ
    stamps: dict[str, list[int] | None] = {}
    for index in sorted(home.glob("*.json")):
        if index.name == "towers.json":
            continue
        clips = _whole(index)
        if clips is None:
            logger.warning("%s: features are cut short; these clips are encoded anew", index)
            continue
        for clip in clips:
            key, path = _key(clip), clip["path"]
            if key not in wanted:
                continue
            long = clip["end_s"] is None or clip["end_s"] - clip["start_s"] > context_s
            if clip["audio"] is not None and (
                ("cut_s" not in clip and long) or (voices and clip.get("voice") is None)
            ):
                continue
            if path not in stamps:
                stamps[path] = _stamp(path)
            if clip["stamp"] == stamps[path]:
                places[key] = _place(index.with_suffix(""), clip)
    return places


def _whole(index: Path) -> list[dict[str, Any]] | None:
    """The clips of a shard; None if one of its files is damaged."""
    try:
        clips: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
        for name in _ARRAYS:
            if any(clip.get(name) is not None for clip in clips):
                _open_array(str(index.with_suffix("")), name)
    except (OSError, ValueError, EOFError):
        return None
    return clips


def _key(clip: dict[str, Any]) -> Key:
    key = (clip["path"], clip["start_s"], clip["end_s"])
    return (*key, tuple(clip["region"])) if "region" in clip else key


def _place(shard: Path, clip: dict[str, Any]) -> _Place:
    rows = {name: clip.get(name) for name in _ARRAYS}
    return _Place(str(shard), rows, clip.get("cut_s", 0.0), clip.get("spoken_s", 0.0))


def _stamp(path: str) -> list[int] | None:
    """Size and time of change of a file; None if it is gone, which its features may outlive."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _open_array(shard: str, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.load(f"{shard}.{name}.npy", mmap_mode="r", allow_pickle=False)
    return array


def _describe(model: EmostreamForCausalLM, processor: EmostreamProcessor) -> dict[str, Any]:
    """All that features depend on besides the clip."""
    backbone, config = model.model, model.config
    crop = {"frame_crop": config.frame_crop, "crop_margin": config.crop_margin}
    return {
        **(crop if config.frame_crop == "face" else {}),
        "vision": _digest(backbone.vision_tower),
        "audio": _digest(backbone.audio_tower),
        "computed_in": str(model.dtype).removeprefix("torch."),
        "num_frames": config.num_frames,
        "vision_layers": config.vision_layers,
        "audio_context_s": processor.audio_context_s,
        "image_processor": _settings(processor.image_processor),
        "feature_extractor": _settings(processor.feature_extractor),
    }


def _digest(tower: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _settings(part: Any) -> str:
    return hashlib.sha256(part.to_json_string().encode()).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    part.write_text(json.dumps(value) + "\n", encoding="utf-8")
    part.replace(path)
