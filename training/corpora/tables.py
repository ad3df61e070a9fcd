"""The text files in which corpora list their clips, and the tables in them, as spreadsheets write them."""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from emostream.errors import ConfigError
from training.corpora.candidates import Options

SUFFIXES: Final = (".csv", ".tsv")
_MARKS: Final = ",;\t|"  # of equally good ones the first
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, options: Options) -> str:
    """Read a file in UTF-8, in UTF-16 if it says so, or in the encoding that the user names.

    Raises:
        ConfigError: It is in another.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    encoding = options.encoding or ("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        wanted = options.encoding or "UTF-8"
        raise ConfigError(
            f"{path}: cannot be read: wanted text in {wanted}, this is not ({error.reason} at byte {error.start}); "
            "name its encoding with --encoding, such as gbk or cp1252"
        ) from error


def tables_in(folder: Path, *, below: bool = False) -> list[Path]:
    """Tables in a folder, by suffix; with `below` also those in folders below."""
    files = folder.rglob("*") if below else folder.glob("*")
    return sorted(
        p
        for p in files
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def read_table(
    path: Path, options: Options, same: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a table: its header, in small letters, and its rows, each with its line's number.

    Cells are parted by commas, semicolons, tabs or bars, whichever parts the header best.

    Args:
        path: The file.
        options: For its encoding.
        same: Column -> other names that it may have, the best first.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        file = io.StringIO(read_text(path, options), newline="")
        first = file.readline()
        skipped = 0
        if said := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE):
            mark, skipped = said[1], 1  # as Excel says it to itself
        else:
            file.seek(0)
            mark = max(_MARKS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
        reader = csv.reader(file, delimiter=mark)
        header = [name.strip().lower() for name in next(reader, [])]
        rows = [
            (reader.line_num + skipped, [cell.strip() for cell in cells])
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    for column, others in (same or {}).items():
        known = next((name for name in others if name in header), None)
        if known and column not in header:
            header[header.index(known)] = column
    return header, rows


def read_csv(
    path: Path,
    needed: Sequence[str],
    options: Options,
    same: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[int, dict[str, str]]]:
    """Read a table as (line number, row by column); as `read_table`.

    Raises:
        ConfigError: It cannot be read, a needed column is missing, or a row ends before it.
    """
    header, lines = read_table(path, options, same)
    if missing := [name for name in needed if name not in header]:
        raise ConfigError(
            f"{path}: the column {missing[0]!r} is missing; found {', '.join(header)}"
        )
    rows = []
    for number, cells in lines:
        named = dict(zip(header, cells, strict=False))
        if short := [name for name in needed if name not in named]:
            raise ConfigError(
                f"{path}:{number}: no value for {short[0]!r}: the line has {len(cells)} of {len(header)} columns"
            )
        rows.append((number, named))
    return rows
