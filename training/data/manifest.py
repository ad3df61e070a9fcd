"""Manifests: one JSON object a line for each labelled clip, whatever corpus it came from."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from emostream.errors import ConfigError
from emostream.labels import canonical_label
from training.data.cues import Cues

#: Of files that are stills.
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A labelled stretch of a clip.

    Attributes:
        path: The media file. In the file on disk it is relative to the manifest's folder, so that a
            corpus can be moved; in memory it is absolute.
        label: The emotion, spelled as in `emostream.labels`; None where a corpus has only words of
            its own for it.
        split: Which part of the corpus it belongs to: train, validation, test, ood, …
        actor: Who is seen and heard, unique within the corpus; None where it is not known.
        start_s: Start in media time.
        end_s: End in media time; None means the end of the file.
        cues: What can be seen and heard, where it was recorded.
        answer: The corpus's own words for the emotion, where they are more than the label.
        reason: Reasoning text, where the corpus has it.
        region: Of a still, the part of the picture that is meant: x, y, width, height in pixels; None for all of it.
        heard_s: How long the actor was heard before, in his other clips: what an audio tower that is standardised knows
            of his voice.
        votes: Label -> how many taggers chose it, where a corpus says; what they chose besides is in `meta`.
        meta: Whatever else a corpus records; kept, never interpreted.
        where: File and line that the row was read from, for messages; not part of it.

    Raises:
        ConfigError: A value is empty or out of range.
    """

    path: Path
    label: str | None
    split: str
    actor: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    cues: Cues | None = None
    answer: str | None = None
    reason: str | None = None
    region: tuple[int, int, int, int] | None = None
    heard_s: float = 0.0
    votes: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """What to call it in a message: the file's name, and which part of a picture."""
        return self.path.name + ("" if self.region is None else "#{},{}".format(*self.region))

    @property
    def is_still(self) -> bool:
        """Whether it is a picture that does not move and has no sound."""
        return self.path.suffix.lower() in PICTURE_SUFFIXES

    def ends_behind(self, duration_s: float | None, by_s: float = 0.0) -> str | None:
        """Say that the row ends more than `by_s` behind its clip, if it does.

        Args:
            duration_s: The clip's length; None if it is not known.
            by_s: What is let pass.
        """
        if None in (self.end_s, duration_s) or self.end_s <= duration_s + by_s:  # type: ignore[operator]
            return None
        ends = f"the clip {self.path.name} ends at {duration_s:.3f} s"
        return f"{self.where or self.path}: end_s is {self.end_s:g}; {ends}"

    def __post_init__(self) -> None:
        if self.label is None and not self.answer and not self.reason and not self.votes:
            raise ConfigError(
                "row: wanted a label, an answer in words or a reason, or votes; found none"
            )
        if any(not math.isfinite(count) or count < 0 for count in self.votes.values()):
            raise ConfigError(f"row: votes are {dict(self.votes)}; wanted numbers from 0 on")
        if self.region is not None and not (self.is_still and _is_region(self.region)):
            raise ConfigError(
                f"row: region is {list(self.region)} of {self.path.name}; wanted x, y, width, height in pixels "
                "of a picture"
            )
        for name in ("label", "split", "actor"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ConfigError(f"row: {name} is empty")
        for name in ("start_s", "heard_s"):
            if not math.isfinite(value := getattr(self, name)) or value < 0:
                raise ConfigError(f"row: {name} is {value}; wanted a time from 0 on")
        if self.end_s is not None and not self.start_s < self.end_s < math.inf:
            raise ConfigError(
                f"row: end_s is {self.end_s}; wanted a time after start_s {self.start_s}"
            )


def _is_region(region: Sequence[Any]) -> bool:
    whole = len(region) == 4 and all(type(value) is int for value in region)
    return whole and min(region[:2]) >= 0 and min(region[2:]) > 0


_KINDS: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "label": (str, type(None)),
    "split": (str,),
    "actor": (str, type(None)),
    "start_s": (int, float),
    "end_s": (int, float, type(None)),
    "cues": (dict, type(None)),
    "answer": (str, type(None)),
    "reason": (str, type(None)),
    "region": (list, type(None)),
    "heard_s": (int, float),
    "votes": (dict,),
    "meta": (dict,),
}
assert set(_KINDS) == {f.name for f in fields(Row) if f.compare}


Key = tuple[Any, ...]


def clip_key(row: Row) -> Key:
    """What names a row's clip: absolute path, start, end and, of a still, the part of the picture."""
    key = (os.path.abspath(row.path), float(row.start_s), row.end_s)
    return key if row.region is None else (*key, row.region)


def read_manifest(path: str | Path, labels: Sequence[str] | None = None) -> list[Row]:
    """Read a manifest; blank lines are skipped.

    Args:
        path: The JSONL file.
        labels: Where given, every label must spell one of these, and takes that spelling; a row
            without a label stays without.

    Raises:
        ConfigError: The file is missing or empty, or a line is not a row; the message names file
            and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: a manifest is UTF-8 text, this is not: {error}") from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, _folder(path), labels, f"{path}:{number}"))
        except ConfigError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
    if not rows:
        raise ConfigError(
            f"{path}: the manifest has no rows; index a corpus with emostream-train corpus"
        )
    return rows


def write_manifest(path: str | Path, rows: Iterable[Row]) -> int:
    """Write rows to a manifest in one step, so that a reader never sees half of one.

    Media below the manifest's folder, or beside it, are named relative to it; on another drive they
    keep their absolute path.

    Returns:
        The number of rows written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_record(row, _folder(path)), ensure_ascii=False) for row in rows]
    part = path.with_name(path.name + ".part")
    # Half of a surrogate pair, which JSON may hold, is written as JSON writes it.
    text = "".join(line + "\n" for line in lines)
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    part.replace(path)
    return len(lines)


def count_labels(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Count rows by split, then by label (`"open"` for those without one)."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.split, Counter())[row.label or "open"] += 1
    return {split: dict(counter) for split, counter in counts.items()}


def _folder(manifest: Path) -> Path:
    # Not resolved: where the folder is reached through a link, so are the clips in it.
    return Path(os.path.abspath(manifest.parent))


def _row(line: str, folder: Path, labels: Sequence[str] | None, where: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"wanted an object, found {type(value).__name__}")
    if unknown := sorted(set(value) - set(_KINDS)):
        raise ConfigError(f"unknown key {unknown[0]!r}; wanted {', '.join(_KINDS)}")
    for key in ("path", "split"):
        if key not in value:
            raise ConfigError(f"the key {key!r} is missing")
    for key, found in value.items():
        if not isinstance(found, _KINDS[key]) or isinstance(found, bool):
            wanted = " or ".join(
                "null" if kind is type(None) else kind.__name__ for kind in _KINDS[key]
            )
            raise ConfigError(f"{key} is {found!r}; wanted {wanted}")
    if not value["path"]:
        raise ConfigError("path is empty")
    label = value.get("label")
    if labels is not None and label is not None:
        label = _in_labels(label, labels)
    cues = value.get("cues")
    return Row(
        **{
            **value,
            "path": Path(os.path.normpath(folder / value["path"])),
            "label": label,
            "cues": None if cues is None else Cues.from_json(cues),
            "region": None if value.get("region") is None else tuple(value["region"]),
            "where": where,
        }
    )


def _in_labels(label: str, labels: Sequence[str]) -> str:
    known = canonical_label(label, labels)
    if known is None:
        raise ConfigError(f"unknown label {label!r}; wanted one of {', '.join(labels)}")
    return known


def _record(row: Row, folder: Path) -> dict[str, Any]:
    file = Path(os.path.abspath(row.path))
    try:
        name = Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive, on Windows
        name = file.as_posix()
    record: dict[str, Any] = {
        "path": name,
        "label": row.label,
        "split": row.split,
        "actor": row.actor,
        "start_s": row.start_s,
        "end_s": row.end_s,
        "cues": None if row.cues is None else row.cues.to_json(),
    }
    for key in ("answer", "reason"):
        if (text := getattr(row, key)) is not None:
            record[key] = text
    if row.region is not None:
        record["region"] = list(row.region)
    if row.heard_s:
        record["heard_s"] = row.heard_s
    if row.votes:
        record["votes"] = dict(row.votes)
    if row.meta:
        record["meta"] = dict(row.meta)
    return record
