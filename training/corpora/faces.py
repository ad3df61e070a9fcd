"""Stills of faces: FER2013 with or without the votes of FER+, and mosaics of faces with a table.

    fer2013.csv                            FER2013 (Goodfellow et al. 2013): a label, 48x48 pixels, a part
    fer2013new.csv                         FER+ (Barsoum et al. 2016), beside it: ten taggers' votes, row by row

    ferplus.csv, ferplus_*.jpg             the same as mosaics of faces of 48 pixels
    webfaces.csv, webfaces_*.jpg           mosaics of faces of 96 pixels, one label and one person each

Tile k of a mosaic of width W and tile side s stands at row k // (W/s), column k % (W/s). FER+ judges a face by its
votes: its label is what most taggers chose, if there is one such; FER2013's own stays in `meta`. Of FER2013, training,
public test and private test are train, validation and test.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS, canonical_label
from training.corpora.candidates import Candidate, Options, Skipped, corpus_label
from training.corpora.tables import read_csv
from training.data.manifest import Row
from training.data.stills import read_picture

SIDE_PX: Final = 48
WEB_SIDE_PX: Final = 96
#: Tiles of a mosaic that is written here: 20 rows of 20.
TILES: Final = 400
_SPLITS: Final = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
_CODES: Final = dict(
    zip("0123456", ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), strict=True)
)
#: Columns of votes in the order of FER+, and those that are for no emotion.
_VOTED: Final = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
)
_NONE_OF_THEM: Final = {"unknown": "unknown", "nf": "no_face"}


def read_ferplus(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield FER2013's faces, with FER+'s votes where they are.

    Raises:
        ConfigError: Neither layout is there, or a row is none of it.
    """
    if (table := folder / "ferplus.csv").is_file():
        yield from _mosaics(table, SIDE_PX, options, ("usage", "fer2013_label", *_VOTED), _voted)
        return
    tables = sorted([*folder.rglob("fer2013.csv"), *folder.rglob("icml_face_data.csv")])
    if not tables:
        raise ConfigError(
            f"{folder}: wanted fer2013.csv (and fer2013new.csv with the votes), or ferplus.csv with mosaics; found "
            "neither. Unpack FER2013 there"
        )
    yield from _published(tables[0], folder, options)


def read_webfaces(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield faces of mosaics that a table gives a label and a person each.

    Raises:
        ConfigError: The table is missing, or a row is none.
    """
    table = folder / "webfaces.csv"
    if not table.is_file():
        raise ConfigError(f"{folder}: wanted webfaces.csv with its mosaics, found none")
    yield from _mosaics(table, WEB_SIDE_PX, options, ("emotion", "person"), _judged_once)


def _mosaics(
    table: Path, side: int, options: Options, columns: tuple[str, ...], judge: Any
) -> Iterator[Candidate]:
    """Rows of a table of tiles; `judge` makes of a line's cells what a `Row` says besides the place."""
    for line, cells in read_csv(table, ("mosaic", "tile", *columns), options):
        where = f"{table}:{line}"
        mosaic = table.parent / cells["mosaic"]
        name = f"{cells['mosaic']}#{cells['tile']}"
        if not mosaic.is_file():
            yield Skipped(name, "missing")
            continue
        across = read_picture(mosaic).shape[1] // side
        if not cells["tile"].isdecimal() or not across:
            raise ConfigError(f"{where}: tile is {cells['tile']!r}; wanted a number from 0 on")
        row, column = divmod(int(cells["tile"]), across)
        found = judge(cells, where)
        if isinstance(found, str):
            yield Skipped(name, found)
            continue
        region = (column * side, row * side, side, side)
        yield Row(path=mosaic, region=region, where=where, **found)


def _judged_once(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    label = canonical_label(cells["emotion"], MAFW_LABELS)
    if label is None:
        raise ConfigError(
            f"{where}: unknown label {cells['emotion']!r}; wanted one of {MAFW_LABELS}"
        )
    return {"label": label, "split": "train", "actor": cells["person"] or None}


def _voted(cells: Mapping[str, str], where: str) -> dict[str, Any] | str:
    """What the taggers and FER2013 say of a face; a reason to leave it out if that is nothing."""
    split = corpus_label(cells["usage"], _SPLITS, where)
    meta: dict[str, Any] = {}
    label = None
    if own := cells.get("fer2013_label"):
        label = canonical_label(own, MAFW_LABELS)
        meta["fer2013"] = label
    if digest := cells.get("pixel_md5"):
        meta["pixel_md5"] = digest
    votes: dict[str, float] = {}
    if all(name in cells for name in _VOTED):
        try:
            counts = {name: int(cells.get(name) or 0) for name in (*_VOTED, *_NONE_OF_THEM)}
        except ValueError as error:
            raise ConfigError(f"{where}: votes are {error}; wanted whole numbers") from error
        most = [name for name, count in counts.items() if count == max(counts.values())]
        if most == ["nf"]:
            return "no face, by most votes"
        meta |= {key: counts[name] for name, key in _NONE_OF_THEM.items() if counts[name]}
        votes = {str(canonical_label(n, MAFW_LABELS)): counts[n] for n in _VOTED if counts[n]}
        label = canonical_label(most[0], MAFW_LABELS) if len(most) == 1 else None
        if not votes:
            return "no vote for an emotion"
    return {"label": label, "split": split, "votes": votes, "meta": meta}


def _published(table: Path, folder: Path, options: Options) -> Iterator[Candidate]:
    """Rows of fer2013.csv; its pixels are written to mosaics, as a picture that is shown needs a file."""
    lists = sorted(folder.rglob("fer2013new.csv"))
    votes = [cells for _, cells in read_csv(lists[0], _VOTED, options)] if lists else None
    out = options.pictures or table.parent
    out.mkdir(parents=True, exist_ok=True)
    waiting: list[Candidate] = []
    tiles = np.zeros((TILES, SIDE_PX, SIDE_PX), np.uint8)
    mosaics = 0
    # A line at a time: the file has 300 MB.
    with table.open(newline="", encoding=options.encoding or "utf-8-sig") as file:
        lines = csv.reader(file)
        header = [name.strip().lower() for name in next(lines, [])]
        if missing := [name for name in ("emotion", "pixels", "usage") if name not in header]:
            raise ConfigError(f"{table}: the column {missing[0]!r} is missing; found {header[:5]}")
        for number, line in enumerate(lines):
            where = f"{table}:{number + 2}"
            cells = dict(zip(header, line, strict=False))
            face = np.array(cells.get("pixels", "").split(), np.uint8)
            if face.size != SIDE_PX**2:
                raise ConfigError(
                    f"{where}: a face has {face.size} pixels; wanted {SIDE_PX**2}. The file is cut short"
                )
            if votes is not None and number >= len(votes):
                raise ConfigError(
                    f"{lists[0]}: has {len(votes)} rows, {table.name} more; they are of different versions"
                )
            said = {} if votes is None else votes[number]
            place = len(waiting)
            tiles[place] = face.reshape(SIDE_PX, SIDE_PX)
            own = corpus_label(cells["emotion"].strip(), _CODES, where)
            digest = hashlib.md5(face.tobytes(), usedforsecurity=False).hexdigest()[:10]
            found = _voted(
                {
                    **said,
                    "usage": cells["usage"].strip(),
                    "fer2013_label": own,
                    "pixel_md5": digest,
                },
                where,
            )
            mosaic = out / f"fer2013_{mosaics:03d}.png"
            y, x = (SIDE_PX * at for at in divmod(place, 20))
            waiting.append(
                Skipped(f"{table.name}:{number + 2}", found)
                if isinstance(found, str)
                else Row(path=mosaic, region=(x, y, SIDE_PX, SIDE_PX), where=where, **found)
            )
            if len(waiting) == TILES:
                _write_mosaic(mosaic, tiles)
                yield from waiting
                waiting, mosaics = [], mosaics + 1
    if waiting:
        tiles[len(waiting) :] = 0
        _write_mosaic(out / f"fer2013_{mosaics:03d}.png", tiles)
        yield from waiting


def _write_mosaic(path: Path, tiles: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    rows = tiles.reshape(20, 20, SIDE_PX, SIDE_PX).swapaxes(1, 2)
    if not cv2.imwrite(str(path), rows.reshape(20 * SIDE_PX, 20 * SIDE_PX)):
        raise ConfigError(f"{path}: cannot be written; name another place with --out")
