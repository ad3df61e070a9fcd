"""What a corpus reader yields, and what the readers share."""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emostream.errors import ConfigError
from training.data.manifest import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to take from a corpus.

    Attributes:
        fold: Which of the published folds is the test set, from 1; for corpora that have folds.
        split: Put every clip into this one split instead.
        labels: Keep only clips with these labels; None keeps all of the corpus's own.
        rename: Label -> label, applied before `labels`: `{"calm": "neutral"}`.
        clips: Folder of the clips, relative to the corpus's, where several copies of it exist.
        by_name: Find clips that are not where a list says by their file name alone, where only one has it.
        pictures: Where a reader may write pictures that the corpus keeps in a table.
        encoding: Of lists and tables; None for UTF-8, and UTF-16 with its mark.

    Raises:
        ConfigError: The fold is not from 1 to 5, or there is no such encoding.
    """

    fold: int = 1
    split: str | None = None
    labels: Sequence[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    clips: str | None = None
    by_name: bool = False
    encoding: str | None = None
    pictures: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.fold <= 5:
            raise ConfigError(f"corpus: wanted a fold from 1 to 5, found {self.fold}")
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            raise ConfigError(
                f"corpus: there is no encoding {self.encoding!r}; wanted one such as utf-8, gbk, cp1252"
            ) from None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A clip that a corpus lists or holds and the manifest does not, and why."""

    name: str
    reason: str


Candidate = Row | Skipped


def corpus_label(code: str, codes: Mapping[str, str], where: str) -> str:
    """Map a corpus's code to our label.

    Raises:
        ConfigError: The code is not one of the corpus's; the message names file and line.
    """
    if code not in codes:
        raise ConfigError(f"{where}: unknown label {code!r}; wanted one of {', '.join(codes)}")
    return codes[code]
