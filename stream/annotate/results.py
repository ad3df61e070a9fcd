"""What a run leaves of each file: its row, written last, so that a file with a row has all its results."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from stream.annotate.files import MediaFile, filesystem_of

ROWS: Final = ".rows"
PARTIAL: Final = ".partial-"


class Run(msgspec.Struct, frozen=True):
    """A stretch over which the same holds, as a rolling label; seconds of the media clock."""

    start_s: float
    end_s: float
    label: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One file in the summary.

    Attributes:
        name: As in `MediaFile`.
        size: Likewise.
        stamp: Likewise.
        settings: Digest of what was asked.
        duration_s: Length of what could be read.
        windows: Labels given.
        runs: Stretches of the rolling label.
        people: Stretches over which as many are visible; none where nobody looked.
        speech: Stretches of speech; None where nobody listened.
        reasons: Explanations written.
        agreed: Those that name the label of the same window.
        problems: What reading the file met, for people.
        error: Why there are no results; empty if there are.
    """

    name: str
    size: int
    stamp: str
    settings: str
    duration_s: float = 0.0
    windows: int = 0
    runs: list[Run] = []
    people: list[Run] = []
    speech: list[Run] | None = None
    reasons: int = 0
    agreed: int = 0
    problems: list[str] = []
    error: str = ""


class Folder:
    """Where results go: a local folder or a fsspec URL.

    Args:
        path: Made if it is not there.

    Attributes:
        path: The same from any working directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.filesystem, self.root = filesystem_of(path)
        self._local = "file" in self.filesystem.protocol
        self.path = self.root if self._local else os.fspath(path)
        self.filesystem.makedirs(self.root, exist_ok=True)

    def work(self) -> Path:
        """A new temporary folder; a local one is on the same disk, so that its files can be moved into place."""
        if not self._local:
            import tempfile

            return Path(tempfile.mkdtemp(prefix=PARTIAL))
        work = Path(self.root, f"{PARTIAL}{uuid.uuid4().hex}")
        work.mkdir()
        return work

    def sweep(self) -> None:
        """Remove the temporary folders that killed workers left; nothing else may be using this folder."""
        if self._local:
            for left in Path(self.root).glob(f"{PARTIAL}*"):
                shutil.rmtree(left, ignore_errors=True)

    def place(self, file: Path, name: str) -> None:
        """Move a finished file into place, where it appears whole or not at all."""
        to = f"{self.root}/{name}"
        self.filesystem.makedirs(to.rpartition("/")[0], exist_ok=True)
        if self._local:
            os.replace(file, to)
        else:
            # Object stores show a file when it is complete; elsewhere the row, which comes last, makes it count.
            self.filesystem.put_file(str(file), to)

    def commit(self, row: Row, work: Path, names: Sequence[str]) -> None:
        """Place a file's results, called `names` in `work`, and then its row."""
        for name in names:
            self.place(work / name, name)
        made = work / "row.json"
        made.write_bytes(msgspec.json.encode(row))
        self.place(made, f"{ROWS}/{row.name}.json")

    def row(self, file: MediaFile, settings: str) -> Row | None:
        """The row of a file that is done, with these settings and as it is now; None if it is not."""
        try:
            found = self.filesystem.cat_file(f"{self.root}/{ROWS}/{file.name}.json")
        except FileNotFoundError:
            return None
        try:
            row = msgspec.json.decode(found, type=Row)
        except msgspec.MsgspecError:
            return None
        same = (row.size, row.stamp, row.settings) == (file.size, file.stamp, settings)
        return row if same and not row.error else None
