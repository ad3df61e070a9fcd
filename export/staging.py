"""An export directory in the making: what it takes over from the one before it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.manifest import Manifest
from export.verify import REPORT


def previous(out: Path) -> Manifest | None:
    """What is in `out`, if it can be trusted."""
    try:
        return Manifest.read(out)
    except ExportError:
        return None


def kept_rows(out: Path, previous: Manifest | None, kept: set[str]) -> list[dict[str, Any]]:
    """Comparisons of the graphs that were taken over."""
    if previous is None or not kept:
        return []
    try:
        rows = json.loads((out / REPORT).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{out / REPORT} cannot be read ({error!r}). Verify anew: emostream-export verify {out}"
        ) from error
    return [row for row in rows if row["graph"] in kept | {"streaming"}]


def link(file: Path, target: Path) -> None:
    """The same file under another name."""
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copy2(file, target)
