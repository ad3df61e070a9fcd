"""What a corpus reader yields, and what the readers share."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from emostream.errors import ConfigError
from training.data.manifest import Row

VIDEO_SUFFIXES: Final = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4v")
AUDIO_SUFFIXES: Final = (".wav", ".flac", ".mp3", ".m4a", ".ogg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to take from a corpus.

    Attributes:
        fold: Which of the published folds is the test set, from 1; for corpora that have folds.
        split: Put every clip into this one split instead.
        labels: Keep only clips with these labels; None keeps all of the corpus's own.
        rename: Label -> label, applied before `labels`: `{"calm": "neutral"}`.
        clips: Folder of the clips, relative to the corpus's, where several copies of it exist.

    Raises:
        ConfigError: The fold is not from 1 to 5.
    """

    fold: int = 1
    split: str | None = None
    labels: Sequence[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    clips: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.fold <= 5:
            raise ConfigError(f"corpus: wanted a fold from 1 to 5, found {self.fold}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A clip that a corpus lists or holds and the manifest does not, and why."""

    name: str
    reason: str


Candidate = Row | Skipped


class ClipFinder:
    """Media files below a folder, by file name.

    Corpora are unpacked in many ways (`part_3/`, `Clip/original/part_3/`, one flat folder), but
    their lists name files only.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        root = folder / options.clips if options.clips else folder
        if not root.is_dir():
            raise ConfigError(f"{root}: no such folder; wanted the folder of the corpus's clips")
        self.root = root
        self._found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES and path.is_file():
                self._found[path.stem.lower()].append(path)

    def __iter__(self) -> Iterator[Path]:
        """Give every file once, sorted by name; of a clip in several formats the best."""
        for name in sorted(self._found):
            if path := self.find(name):
                yield path

    def find(self, name: str) -> Path | None:
        """Find a clip by its name, with or without suffix; video before audio, None if missing.

        Raises:
            ConfigError: Several files could be meant.
        """
        path = Path(name)
        has_suffix = path.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES
        found = self._found.get((path.stem if has_suffix else path.name).lower(), [])
        for suffixes in (VIDEO_SUFFIXES, AUDIO_SUFFIXES):
            if same := [p for p in found if p.suffix.lower() in suffixes]:
                exact = [p for p in same if p.name.lower() == path.name.lower()] or same
                if len(exact) > 1:
                    raise ConfigError(
                        f"{self.root}: several clips are named {name}: {exact[0]} and {exact[1]}; "
                        "name the folder to use with --clips"
                    )
                return exact[0]
        return None


def read_csv(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV with a header as (line number, row); column names without case or spaces.

    Raises:
        ConfigError: It cannot be read, or a needed column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            if missing := [name for name in needed if name not in header]:
                raise ConfigError(
                    f"{path}: the column {missing[0]!r} is missing; found {', '.join(header)}"
                )
            rows = []
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    named = dict(zip(header, (c.strip() for c in cells), strict=False))
                    if short := [name for name in needed if name not in named]:
                        raise ConfigError(
                            f"{path}:{reader.line_num}: no value for {short[0]!r}: the line has "
                            f"{len(cells)} of {len(header)} columns"
                        )
                    rows.append((reader.line_num, named))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error


def corpus_label(code: str, codes: Mapping[str, str], where: str) -> str:
    """Map a corpus's code to our label.

    Raises:
        ConfigError: The code is not one of the corpus's; the message names file and line.
    """
    if code not in codes:
        raise ConfigError(f"{where}: unknown label {code!r}; wanted one of {', '.join(codes)}")
    return codes[code]
