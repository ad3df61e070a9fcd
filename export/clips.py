"""Real clips for `verify`: windows of media files, and what torch and the engines say of them."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from emostream.errors import MediaError
from emostream.inference.encoders import Encoders
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.media import MediaReader, PcmChunk, load_clip, probe
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from export.errors import ExportError
from export.onnx.precision import Tolerance

WINDOW_S = 4.0
STEP_S = 1.0
MEDIA = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wav", ".mp3"}
#: Labels this close in torch's own probabilities are a tie, and either is right.
TIE = 0.01


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window of a file, media time in seconds."""

    path: Path
    start_s: float
    end_s: float


def demo_clip() -> Path:
    """The clip that ships in the package beside this one (an asset, not a module)."""
    return Path(str(files("stream").joinpath("assets", "demo.mp4")))


def stretches(clips: Path | None, limit: int) -> list[Stretch]:
    """Windows of `WINDOW_S`, `STEP_S` apart, spread evenly over what there is.

    Args:
        clips: A media file, a folder of them, or a manifest (JSONL rows with path, and perhaps start_s and end_s); None
            for the demo's clip.
        limit: How many at most.

    Raises:
        ExportError: There is nothing to read.
    """
    clips = clips or demo_clip()
    if clips.suffix == ".jsonl":
        spans: Iterable[tuple[Path, float, float | None]] = _rows(clips)
    elif clips.is_dir():
        spans = [(p, 0.0, None) for p in sorted(clips.rglob("*")) if p.suffix.lower() in MEDIA]
    else:
        spans = [(clips, 0.0, None)]
    found = [window for span in spans for window in _windows(*span)]
    if not found:
        raise ExportError(f"verify: {clips} has no media files. Name a file, folder or manifest.")
    every = max(1, math.ceil(len(found) / limit))
    return found[::every]


def agreement(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    encoders: Encoders,
    windows: Sequence[Stretch],
    tolerance: Tolerance,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Labels and scores of windows, by torch's encoders and by the engines', with one language model.

    Args:
        model: In float32.
        processor: Its own.
        encoders: The engines.
        windows: From `stretches`.
        tolerance: What passes.
        say: Told of each disagreement.

    Raises:
        ExportError: None of the windows can be decoded.
    """
    plain = Recognizer(model, processor)
    compiled = Recognizer(model, processor, encoders=encoders)
    divergences, same, unreadable = [], 0, 0
    for stretch in windows:
        window = _load(stretch, model.config.num_frames)
        if window is None:
            unreadable += 1
            continue
        [wanted] = plain.recognize([window])
        [found] = compiled.recognize([window])
        plain.forget("clip")
        compiled.forget("clip")
        divergences.append(kl(wanted.scores, found.scores))
        if wanted.scores[wanted.label] - wanted.scores[found.label] <= TIE:
            same += 1
        else:
            say(
                f"{stretch.path.name} at {stretch.start_s:g} s: torch says {wanted.label} "
                f"({wanted.scores[wanted.label]:.2f}), the engines {found.label} ({found.scores[found.label]:.2f})"
            )
    if not divergences:
        raise ExportError(f"verify: no window of {windows[0].path} and the others can be decoded.")
    part, mean = same / len(divergences), sum(divergences) / len(divergences)
    return {
        "windows": len(divergences),
        "unreadable": unreadable,
        "agreement": part,
        "kl_mean": mean,
        "kl_max": max(divergences),
        "tie_below": TIE,
        # A divergence that is no number passes nothing.
        "passed": part >= tolerance.agreement and mean <= tolerance.kl,
    }


def kl(wanted: dict[str, float], found: dict[str, float]) -> float:
    """KL(wanted ‖ found) in nats."""
    total = sum(
        p * (math.log(p) - math.log(max(found[label], 1e-12)))
        for label, p in wanted.items()
        if p > 0
    )
    return max(0.0, total)  # rounding of equal scores


def _rows(manifest: Path) -> Iterator[tuple[Path, float, float | None]]:
    try:
        for line in manifest.read_text(encoding="utf-8").splitlines():
            if line.strip():
                row = json.loads(line)
                # An absolute path stays what it is.
                yield manifest.parent / row["path"], row.get("start_s", 0.0), row.get("end_s")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"verify: {manifest} is no manifest of clips ({error!r}).") from error


def _windows(path: Path, start_s: float, end_s: float | None) -> Iterator[Stretch]:
    if end_s is None:
        try:
            end_s = _length_s(path)
        except MediaError as error:
            raise ExportError(f"verify: {error}") from error
    count = max(1, int((end_s - start_s - WINDOW_S) // STEP_S) + 1)
    for index in range(count):
        begin_s = start_s + index * STEP_S
        yield Stretch(path, begin_s, min(end_s, begin_s + WINDOW_S))


def _length_s(path: Path) -> float:
    duration_s = probe(path).duration_s
    if duration_s is None:  # as browsers record WebM: what is in it tells
        with MediaReader(path) as reader:
            ends = (i.end_s if isinstance(i, PcmChunk) else i.time_s for i in reader)
            duration_s = max(ends, default=0.0)
    return duration_s


def _load(stretch: Stretch, num_frames: int) -> MediaWindow | None:
    try:
        clip = load_clip(stretch.path, num_frames, stretch.start_s, stretch.end_s)
    except MediaError:
        return None  # counted
    frames = () if clip.frames is None else tuple(clip.frames)
    return MediaWindow(
        source="clip", keys=tuple(range(len(frames))), frames=frames, audio=clip.audio
    )
