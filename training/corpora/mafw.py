"""MAFW (Liu et al. 2022): 9k film and show clips, eleven single emotions, five published folds.

Train & Test Set/single/no_caption/set_{1..5}/{train,test}.txt     lines: 00025.mp4 anger
00025.mp4                                                          here or in any folder below
"""

from collections.abc import Iterator
from pathlib import Path

from emostream.errors import ConfigError
from emostream.labels import CORPUS_LABELS
from training.corpora.candidates import Candidate, Options, corpus_label
from training.corpora.clips import ClipFinder
from training.corpora.tables import read_text
from training.data.manifest import Row


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of one fold.

    Raises:
        ConfigError: A list is missing, a line is not `file label`, or a label is unknown.
    """
    lists = folder / "Train & Test Set" / "single" / "no_caption" / f"set_{options.fold}"
    clips = ClipFinder(folder, options)
    for split in ("train", "test"):
        path = lists / f"{split}.txt"
        try:
            lines = read_text(path, options).splitlines()
        except OSError as error:
            raise ConfigError(f"{path}: cannot read MAFW's list: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            parts = line.split()
            if len(parts) != 2:
                raise ConfigError(
                    f"{path}:{number}: wanted a file and a label, found {line.strip()!r}"
                )
            name, word = parts
            label = corpus_label(word, CORPUS_LABELS["mafw"], f"{path}:{number}")
            clip = clips.find(name)
            if clip is None:
                yield clips.missing(name)
            else:
                yield Row(path=clip, label=label, split=split)
    yield from clips.left_out
