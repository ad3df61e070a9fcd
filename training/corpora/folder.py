"""Any folder of clips with a table of labels, or with a folder for each label.

    labels.csv    path,label[,split][,actor][,start_s][,end_s][,answer][,reason]
    happy/1.mp4, train/sad/2.wav

`path` is relative to the table, or the bare name of a clip anywhere below it. Labels may be spelled
in any of the ways that `emostream.labels` knows; others are labels of the corpus's own only when
they are asked for (`--labels`). Without a split column, or a folder named after one, every clip is for training.
Pictures are clips too. Where a table joins several corpora, a column `corpus` keeps their actors apart; columns that
mean nothing here are kept in `meta`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS, canonical_label
from training.corpora.candidates import Candidate, Options, Skipped
from training.corpora.clips import ClipFinder
from training.corpora.tables import read_csv, tables_in
from training.data.manifest import Row

_PATHS: Final = (
    "path",
    "file",
    "video",
    "name",
    "audio",
    "clip",
    "filename",
    "file_name",
    "file_id",
)
_COLUMNS: Final = {
    "path": _PATHS[1:],
    "label": ("emotion",),
    "actor": ("speaker", "speaker_id", "actor_id"),
}
_READ: Final = (*_COLUMNS, "split", "start_s", "end_s", "answer", "reason")
_KNOWN: Final = (*MAFW_LABELS, "calm")
_SPLITS: Final = ("train", "validation", "val", "valid", "dev", "test", "ood")


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of the folder's one table, of a table given by its path, or of folders named after labels.

    Raises:
        ConfigError: There are several tables, or neither one nor folders of labels; a column is missing, a time
            cannot be, or a label is unknown.
    """
    tables = [folder] if folder.is_file() else tables_in(folder)
    if len(tables) > 1:
        found = ", ".join(path.name for path in tables)
        raise ConfigError(f"{folder}: wanted one CSV of labels, found {found}; name it as DIR")
    yield from _of_table(tables[0], options) if tables else _of_folders(folder, options)


def _of_table(table: Path, options: Options) -> Iterator[Candidate]:
    clips = ClipFinder(table.parent, options, stills=True)
    for line, row in read_csv(table, ("label",), options, _COLUMNS):
        where = f"{table}:{line}"
        if "path" not in row:
            raise ConfigError(f"{table}: no column of clips; wanted one of {', '.join(_PATHS)}")
        label = _label(row["label"], options)
        if label is None:
            raise ConfigError(
                f"{where}: unknown label {row['label']!r}; wanted one of {', '.join(_KNOWN)}; "
                "name labels of your own with --labels, or map one with --rename"
            )
        path = clips.listed(row["path"])
        if path is None:
            yield clips.missing(row["path"])
            continue
        try:
            yield Row(
                path=path,
                label=label,
                split=row.get("split") or "train",
                actor=_actor(row),
                start_s=_time(row, "start_s") or 0.0,
                end_s=_time(row, "end_s"),
                answer=row.get("answer") or None,
                reason=row.get("reason") or None,
                meta={key: text for key, text in row.items() if key not in _READ and text},
                where=where,
            )
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    yield from clips.left_out


def _of_folders(folder: Path, options: Options) -> Iterator[Candidate]:
    clips = ClipFinder(folder, options, stills=True)
    labelled = False
    strange: list[tuple[str, str]] = []
    for path in clips.files():
        folders = path.relative_to(clips.root).parts[:-1]
        labels = [label for name in folders if (label := _label(name, options))]
        if not labels:
            strange.append((path.name, "/".join(folders)))
            continue
        labelled = True
        splits = [name.lower() for name in folders if name.lower() in _SPLITS]
        yield Row(path=path, label=labels[-1], split=splits[0] if splits else "train")
    if not labelled:
        found = ", ".join(sorted({name or "." for _, name in strange})[:5]) or "no clip"
        raise ConfigError(
            f"{folder}: wanted one CSV of labels, found none; nor do folders name labels: found {found}, wanted "
            f"{', '.join(_KNOWN)}; name labels of your own with --labels, or map one with --rename"
        )
    for name, place in strange:
        yield Skipped(name, f"in a folder that names no label, {place or '.'}")
    yield from clips.left_out


def _label(text: str, options: Options) -> str | None:
    return canonical_label(options.rename.get(text, text), (*(options.labels or ()), *_KNOWN))


def _actor(row: dict[str, str]) -> str | None:
    """Who it is; actors of different corpora may have one name."""
    parts = (row.get("corpus"), row.get("actor"))
    return "-".join(filter(None, parts)) if row.get("actor") else None


def _time(row: dict[str, str], name: str) -> float | None:
    text = row.get(name)
    if not text:
        return None
    try:
        return float(text.replace(",", "."))  # as a spreadsheet in German or French writes it
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; wanted seconds") from None
