"""EMER (Lian et al. 2023) and the tables of MER2025: open-vocabulary emotions and reasons in CSV.

    *.csv with  names,emotions,subtitles,reasons      EMER v1
                name,chinese,english                  EMER v2: a description in two languages
                name,openset                          MER2025
                name,reason                           MER2025
    video/{name}.mp4, audio/{name}.wav                here or in any folder below

All tables of the folder are read and joined by name. A clip gets a label of ours only where its
emotions name exactly one; its own words are kept as the answer either way.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS, canonical_label
from training.corpora.candidates import Candidate, Options, Skipped
from training.corpora.clips import ClipFinder
from training.corpora.tables import read_table, tables_in
from training.data.manifest import Row

# Header of a table -> which column is the answer, which the reason, which is kept beside them.
_TABLES: Final[dict[tuple[str, ...], dict[str, str]]] = {
    ("names", "emotions", "reasons"): {
        "names": "name",
        "emotions": "answer",
        "reasons": "reason",
        "subtitles": "subtitle",
    },
    ("name", "chinese", "english"): {"name": "name", "english": "reason", "chinese": "chinese"},
    ("name", "openset"): {"name": "name", "openset": "answer"},
    ("name", "reason"): {"name": "name", "reason": "reason"},
}


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips that any of the folder's tables lists, all of them for training.

    Raises:
        ConfigError: There is no table of a known form.
    """
    clips = ClipFinder(folder, options)
    for name, values in _tables(folder, options).items():
        path = clips.find(name)
        if path is None:
            yield clips.missing(name)
            continue
        words = split_emotions(values.get("answer", ""))
        if not words and not values.get("reason"):
            yield Skipped(name, "neither emotion nor reason")
            continue
        yield Row(
            path=path,
            label=single_label(words, options.labels or MAFW_LABELS),
            split="train",
            answer=", ".join(words) or None,
            reason=values.get("reason") or None,
            meta={k: values[k] for k in ("subtitle", "chinese") if values.get(k)},
        )
    yield from clips.left_out


def split_emotions(text: str) -> list[str]:
    """Read a list of emotions, written `['worried', 'sad']` or `worried, sad`; each once."""
    if text.startswith("["):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text.strip("[]")
    else:
        value = text
    words = re.split(r"[,;，、；]", value) if isinstance(value, str) else [str(v) for v in value]
    return list(dict.fromkeys(w.strip(" '\"") for w in words if w.strip(" '\"")))


def single_label(words: Sequence[str], labels: Sequence[str]) -> str | None:
    """Return the label that the words name, or None where they name none or several."""
    named = {label for word in words if (label := canonical_label(word, labels))}
    return named.pop() if len(named) == 1 else None


def _tables(folder: Path, options: Options) -> dict[str, dict[str, str]]:
    joined: dict[str, dict[str, str]] = defaultdict(dict)
    known = False
    for path in tables_in(folder, below=True):
        header, rows = read_table(path, options)
        columns = next((c for needed, c in _TABLES.items() if set(needed) <= set(header)), None)
        if columns is None:
            continue
        known = True
        for _, cells in rows:
            row = dict(zip(header, cells, strict=False))
            record = {ours: row[theirs] for theirs, ours in columns.items() if row.get(theirs)}
            if "name" in record:
                joined[record.pop("name")] |= record
    if not known:
        forms = " or ".join(",".join(form) for form in _TABLES)
        raise ConfigError(f"{folder}: no table found; wanted a CSV with the columns {forms}")
    return joined
