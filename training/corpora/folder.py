"""Any folder of clips with a CSV of labels.

    labels.csv    path,label[,split][,actor][,start_s][,end_s][,answer][,reason]

`path` is relative to the CSV, or the bare name of a clip anywhere below it. Labels may be spelled
in any of the ways that `emostream.labels` knows; others are labels of the corpus's own only when
they are asked for (`--labels`). Without a split column every clip is for training.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS, canonical_label
from training.corpora.candidates import Candidate, ClipFinder, Options, Skipped, read_csv
from training.data.manifest import Row

_PATHS: Final = ("path", "file", "video", "name")
_KNOWN: Final = (*MAFW_LABELS, "calm")


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of the folder's one CSV, or of a CSV given by its path.

    Raises:
        ConfigError: There is not exactly one CSV, a column is missing, a time is no number, or a
            label is unknown.
    """
    table = _table(folder)
    clips = ClipFinder(table.parent, options)
    for line, row in read_csv(table, ("label",)):
        where = f"{table}:{line}"
        column = next((name for name in _PATHS if name in row), None)
        if column is None:
            raise ConfigError(f"{table}: no column of clips; wanted one of {', '.join(_PATHS)}")
        renamed = options.rename.get(row["label"], row["label"])
        label = canonical_label(renamed, (*(options.labels or ()), *_KNOWN))
        if label is None:
            raise ConfigError(
                f"{where}: unknown label {row['label']!r}; wanted one of {', '.join(_KNOWN)}; "
                "name labels of your own with --labels, or map one with --rename"
            )
        path = clips.root / row[column]
        found = path if path.is_file() else clips.find(row[column])
        if found is None:
            yield Skipped(row[column], "missing")
            continue
        yield Row(
            path=found,
            label=label,
            split=row.get("split") or "train",
            actor=row.get("actor") or None,
            start_s=_time(row, "start_s", where) or 0.0,
            end_s=_time(row, "end_s", where),
            answer=row.get("answer") or None,
            reason=row.get("reason") or None,
        )


def _table(folder: Path) -> Path:
    if folder.is_file():
        return folder
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise ConfigError(f"{folder}: wanted one CSV of labels, found {found}; name it as DIR")
    return tables[0]


def _time(row: dict[str, str], name: str, where: str) -> float | None:
    text = row.get(name)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{where}: {name} is {text!r}; wanted seconds") from None
