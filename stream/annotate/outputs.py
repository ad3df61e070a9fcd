"""One file's results in the formats that were asked for."""

from __future__ import annotations

import datetime
import mimetypes
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from stream.annotate import timeline
from stream.annotate.annotator import Annotation
from stream.annotate.results import Run
from stream.annotate.settings import Settings
from stream.pubsub.messages import encode
from stream.pubsub.recording import write_table

Tiers = Mapping[str, Sequence[Run]]
SUFFIX: Final = {"jsonl": "jsonl", "csv": "csv", "eaf": "eaf", "textgrid": "TextGrid", "png": "png"}


def write(
    annotation: Annotation, settings: Settings, media: str, name: str, work: Path
) -> list[str]:
    """Write results into a folder; returns their names in it.

    Args:
        annotation: What was found.
        settings: Which formats.
        media: The file's own path or URL, which an `.eaf` refers to.
        name: What results are called after.
        work: The folder.
    """
    made: dict[str, str] = {}
    for format in settings.formats:
        if format in SUFFIX:
            made[format] = f"{name}.{SUFFIX[format]}"
    base = work / name
    base.parent.mkdir(parents=True, exist_ok=True)
    recording = work / f"{name}.{SUFFIX['jsonl']}"
    recording.write_bytes(b"".join(encode(event)[1] + b"\n" for event in annotation.events))
    hop_s = settings.inference.hop_steps * settings.inference.step_s
    tiers = {
        timeline.LABELS: timeline.runs(annotation.events, hop_s, annotation.duration_s),
        timeline.REASONS: timeline.reasons(annotation.events, annotation.duration_s),
        **presence(annotation, settings),
    }
    if not annotation.events:  # nobody is in it
        made = {kind: file for kind, file in made.items() if kind not in ("csv", "png")}
    writers: dict[str, Callable[[Path], object]] = {
        "csv": lambda out: write_table(recording, out),
        "eaf": lambda out: write_eaf(out, tiers, media),
        "textgrid": lambda out: write_textgrid(out, tiers, annotation.duration_s),
        "png": lambda out: _plot(recording, out),
    }
    for kind, file in made.items():
        if kind in writers:
            writers[kind](work / file)
    return list(made.values())


def presence(annotation: Annotation, settings: Settings) -> dict[str, list[Run]]:
    """The tiers of who is visible and of speech, where somebody looked and listened."""
    step_s, duration_s = settings.inference.step_s, annotation.duration_s
    tiers = {}
    if annotation.scenes:
        tiers[timeline.PEOPLE] = timeline.people(annotation.scenes, step_s, duration_s)
    if annotation.spoken_s is not None:
        tiers[timeline.SPEECH] = timeline.speech(annotation.spoken_s)
    return tiers


def write_eaf(out: Path, tiers: Tiers, media: str) -> None:
    """ELAN: a tier each, times rounded to ELAN's milliseconds."""
    from pympi.Elan import Eaf

    eaf = Eaf(author="emostream")
    # Not the time of writing: the same file gives the same bytes.
    modified = os.stat(media).st_mtime if os.path.exists(media) else 0
    eaf.adocument["DATE"] = datetime.datetime.fromtimestamp(modified, datetime.UTC).isoformat()
    kind = mimetypes.guess_type(media)[0] or "unknown"
    url = Path(media).absolute().as_uri() if os.path.exists(media) else media
    eaf.add_linked_file(url, mimetype=kind)
    eaf.remove_tier("default")
    for tier, stretches in tiers.items():
        eaf.add_tier(tier)
        for run in stretches:
            start_ms, end_ms = round(1000 * run.start_s), round(1000 * run.end_s)
            if start_ms < end_ms:
                eaf.add_annotation(tier, start_ms, end_ms, _printable(run.label))
    eaf.to_file(str(out))


def write_textgrid(out: Path, tiers: Tiers, duration_s: float) -> None:
    """Praat: an interval tier each; what has no label is an empty interval."""
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.data_classes.textgrid import Textgrid

    grid = Textgrid()
    for tier, stretches in tiers.items():
        entries = [(run.start_s, run.end_s, _printable(run.label)) for run in stretches]
        grid.addTier(IntervalTier(tier, entries, 0.0, duration_s))
    grid.save(str(out), format="long_textgrid", includeBlankSpaces=True)


def _printable(text: str) -> str:
    """Without control characters, which XML does not allow."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _plot(recording: Path, out: Path) -> None:
    from stream.view.plot import plot

    plot(recording, out)
