"""Indexing: a corpus in its published layout -> one manifest, with an account of what is not in it."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from emostream.errors import ConfigError, MediaError
from emostream.labels import canonical_label
from emostream.media import MediaInfo, probe
from training.claims.measured_cues import MeasuredRows, with_measured_voice
from training.corpora import conversations, cremad, dfew, emer, faces, folder, mafw, ravdess
from training.corpora.candidates import Candidate, Options, Skipped
from training.data.manifest import Row, clip_key, count_labels, write_manifest
from training.data.stills import read_still

Reader = Callable[[Path, Options], Iterator[Candidate]]

READERS: Final[dict[str, Reader]] = {
    "dfew": dfew.read,
    "mafw": mafw.read,
    "ravdess": ravdess.read,
    "crema-d": cremad.read,
    "emer": emer.read,
    "mer2025": emer.read,
    "conversations": conversations.read,
    "folder": folder.read,
    "ferplus": faces.read_ferplus,
    "webfaces": faces.read_webfaces,
}

_KEPT_LAST: Final = ("validation", "train")  # of splits that share a clip, the test keeps it
_PROBES: Final = 4  # decoding waits on disks more than it computes
_NAMES_SHOWN: Final = 5
_ROUNDED_S: Final = 0.1  # times in lists are rounded


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a corpus.

    Attributes:
        manifest: The file written.
        rows: Rows written.
        labels: Split -> label -> rows.
        skipped: Clips left out, each with its reason.
        without: Modality -> clips that lack it but are kept.
        actors: Split -> number of known actors.
        shared_actors: Actors that are in more than one split: a test on them is not of strangers.
        measured: What measuring voices found, where it was asked for.
        cut: Of rows that ended behind their clip and now end with it, what each said.
    """

    manifest: Path
    rows: int
    labels: dict[str, dict[str, int]]
    skipped: tuple[Skipped, ...]
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)
    actors: dict[str, int] = field(default_factory=dict)
    shared_actors: tuple[str, ...] = ()
    measured: MeasuredRows | None = None
    cut: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the report as text for a terminal."""
        yield f"{self.manifest}: {self.rows} rows"
        for split, labels in self.labels.items():
            shares = ", ".join(f"{label} {count}" for label, count in sorted(labels.items()))
            actors = f", {self.actors[split]} actors" if self.actors.get(split) else ""
            yield f"  {split}: {sum(labels.values())} ({shares}){actors}"
        reasons: dict[str, list[str]] = defaultdict(list)
        for skip in self.skipped:
            reasons[skip.reason.partition(": ")[0]].append(skip.name)
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            yield f"  skipped {len(names)}, {reason}: {_some(names)}"
        for modality, kept in self.without.items():
            yield f"  kept {len(kept)} without {modality}: {_some(kept)}"
        if self.cut:
            yield f"  cut {len(self.cut)} rows at the end of their clips: {_some(self.cut)}"
        if self.shared_actors:
            yield f"  warning: actors in more than one split: {_some(self.shared_actors)}"
        if self.measured is not None:
            yield (
                f"  voice cues measured for {self.measured.measured}; not for "
                f"{self.measured.without_actor} without a known speaker of enough clips, "
                f"{self.measured.without_voice} without a voice"
            )
        if self.skipped:
            yield f"  all skipped clips: {self.skipped_path}"

    @property
    def skipped_path(self) -> Path:
        """Where the full list of skipped clips is."""
        return self.manifest.with_suffix(".skipped.jsonl")


def index(
    kind: str,
    directory: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    measure_voice: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Report:
    """Index a corpus: read its lists, open every clip, write the manifest.

    A clip that is listed but missing or unreadable is skipped, named and counted; so is one that
    the test split lists again, or a row that starts behind its clip's end. One that ends behind it is cut there.

    Args:
        kind: A key of `READERS`.
        directory: The corpus's folder (for conversations and folder also the one file).
        out: The manifest to write; the skipped clips are listed beside it.
        options: What to take.
        measure_voice: Also measure voice cues with Praat, speaker by speaker.
        on_progress: Called with a step's name, the number of clips done in it, and of all.

    Raises:
        ConfigError: The kind is unknown, the folder is not such a corpus, a label is unknown, or no
            clip can be used.
    """
    directory, out = Path(directory), Path(out)
    options = replace(options or Options(), pictures=out.with_suffix(".pictures"))
    if kind not in READERS:
        raise ConfigError(f"corpus: unknown kind {kind!r}; wanted one of {', '.join(READERS)}")
    if not directory.exists():
        raise ConfigError(f"{directory}: no such folder; wanted the folder of {kind}")
    skipped: list[Skipped] = []
    listed: list[Row] = []
    for candidate in READERS[kind](directory, options):
        found = candidate if isinstance(candidate, Skipped) else _chosen(candidate, options)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            listed.append(found)
    listed = list(_once(listed, skipped, clip_key, "listed twice"))
    rows, without, cut = _opened(listed, skipped, partial(on_progress, "clips opened"))
    rows = list(_once(rows, skipped, _content, "the same picture twice"))
    if not rows:
        reasons = Counter(skip.reason.partition(": ")[0] for skip in skipped)
        account = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise ConfigError(
            f"{directory}: no clip of {kind} can be used; {account or 'none is listed'}"
        )
    measured = None
    if measure_voice:
        measured = with_measured_voice(rows, on_progress=partial(on_progress, "voices measured"))
        rows = list(measured.rows)
    rows.sort(key=lambda row: (row.split, row.path, row.start_s))
    write_manifest(out, rows)
    actors = _actors(rows)
    report = Report(
        manifest=out,
        rows=len(rows),
        labels=count_labels(rows),
        skipped=tuple(sorted(skipped, key=lambda skip: skip.name)),
        without=without,
        actors={split: len(names) for split, names in actors.items()},
        shared_actors=_shared(actors),
        measured=measured,
        cut=cut,
    )
    _write_skipped(report)
    return report


def _chosen(row: Row, options: Options) -> Candidate:
    """Apply renaming, the label filter and the one split."""
    label = row.label if row.label is None else options.rename.get(row.label, row.label)
    if options.labels is not None and label is not None:
        known = canonical_label(label, options.labels)
        if known is None:
            return Skipped(row.name, f"label {label} not asked for")
        label = known
    return replace(row, label=label, split=options.split or row.split)


def _once(
    rows: Iterable[Row], skipped: list[Skipped], key_of: Callable[[Row], object], twice: str
) -> Iterator[Row]:
    """Leave out what is there twice; what is also in another split stays in that one only."""
    kept: dict[object, Row] = {}
    for row in sorted(
        rows, key=lambda row: _KEPT_LAST.index(row.split) if row.split in _KEPT_LAST else -1
    ):
        key = key_of(row)
        if key in kept:
            other = kept[key].split
            reason = twice if other == row.split else f"also in {other}"
            if (row.label, row.answer) != (kept[key].label, kept[key].answer):
                reason += " with another label"
            skipped.append(Skipped(row.name, reason))
        else:
            kept[key] = row
            yield row


def _content(row: Row) -> object:
    """What two pictures have in common that are one; of clips, their place."""
    return row.meta.get("pixel_md5") or clip_key(row)


def _opened(
    listed: list[Row], skipped: list[Skipped], on_progress: Callable[[int, int], None]
) -> tuple[list[Row], dict[str, tuple[str, ...]], tuple[str, ...]]:
    rows: list[Row] = []
    cut: list[str] = []
    without: dict[str, list[str]] = defaultdict(list)
    stills = [row for row in listed if row.is_still]
    for row in stills:
        try:
            rows.append(_digested(row))
        except MediaError as error:
            skipped.append(Skipped(row.name, f"unreadable: {error}"))
    if stills:
        without["audio"] += [row.name for row in stills]
    listed = [row for row in listed if not row.is_still]
    paths = list(dict.fromkeys(row.path for row in listed))
    infos: dict[Path, MediaInfo | MediaError] = {}
    with ThreadPoolExecutor(_PROBES) as pool:
        for done, (path, info) in enumerate(zip(paths, pool.map(_probe, paths), strict=True), 1):
            infos[path] = info
            on_progress(done, len(paths))
    for row in listed:
        info = infos[row.path]
        problem = str(info) if isinstance(info, MediaError) else _unusable(row, info)
        if problem or isinstance(info, MediaError):
            skipped.append(Skipped(row.name, f"unreadable: {problem}"))
            continue
        for modality, stream in (("video", info.video), ("audio", info.audio)):
            if stream is None:
                without[modality].append(row.name)
        if said := row.ends_behind(info.duration_s, _ROUNDED_S):
            cut.append(said)
        rows.append(replace(row, end_s=info.duration_s) if said or row.end_s is None else row)
    return rows, {modality: tuple(names) for modality, names in without.items()}, tuple(cut)


def _digested(row: Row) -> Row:
    """A still that can be read, with what its pixels add up to."""
    pixels = np.ascontiguousarray(read_still(row))
    digest = hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest()[:10]
    return replace(row, meta={"pixel_md5": digest, **row.meta})


def _probe(path: Path) -> MediaInfo | MediaError:
    try:
        return probe(path)
    except MediaError as error:
        return error


def _unusable(row: Row, info: MediaInfo) -> str | None:
    streams = [stream for stream in (info.video, info.audio) if stream is not None]
    if broken := [stream.codec for stream in streams if not stream.decodable]:
        return f"no decoder for {broken[0]}"
    if info.video is not None and info.video.rotation_deg is None:
        return "the first frame does not decode"
    if info.duration_s is not None and row.start_s >= info.duration_s:
        place = f" ({row.where})" if row.where else ""
        return f"starts at {row.start_s} s, the clip ends at {info.duration_s:.3f} s{place}"
    return None


def _actors(rows: list[Row]) -> dict[str, set[str]]:
    actors: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.actor is not None:
            actors[row.split].add(row.actor)
    return actors


def _shared(actors: dict[str, set[str]]) -> tuple[str, ...]:
    splits = Counter(name for names in actors.values() for name in names)
    return tuple(sorted(name for name, count in splits.items() if count > 1))


def _write_skipped(report: Report) -> None:
    if not report.skipped:
        report.skipped_path.unlink(missing_ok=True)  # of an earlier run
        return
    lines = (json.dumps({"name": s.name, "reason": s.reason}) for s in report.skipped)
    report.skipped_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _some(names: Iterable[str]) -> str:
    # What is no text, as file names and JSON may be, cannot be shown on a terminal as it is.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
