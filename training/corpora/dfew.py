"""DFEW (Jiang et al. 2020): 16k film clips, seven emotions, five published folds.

EmoLabel_DataSplit/{train,test}(single-labeled)/set_{1..5}.csv     video_name,label (1 to 7)
part_{1..11}/{n}.mp4                                               here or in any folder below
"""

from collections.abc import Iterator
from pathlib import Path

from emostream.labels import CORPUS_LABELS
from training.corpora.candidates import (
    Candidate,
    ClipFinder,
    Options,
    Skipped,
    corpus_label,
    read_csv,
)
from training.data.manifest import Row


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of one fold.

    Raises:
        ConfigError: A list is missing, or a label is not one of the seven.
    """
    lists = folder / "EmoLabel_DataSplit"
    clips = {_number(path.stem): path for path in ClipFinder(folder, options)}
    for split in ("train", "test"):
        path = lists / f"{split}(single-labeled)" / f"set_{options.fold}.csv"
        for line, row in read_csv(path, ("video_name", "label")):
            label = corpus_label(row["label"], CORPUS_LABELS["dfew"], f"{path}:{line}")
            clip = clips.get(_number(row["video_name"]))
            if clip is None:
                yield Skipped(row["video_name"], "missing")
            else:
                yield Row(path=clip, label=label, split=split)


def _number(name: str) -> int | str:
    # Lists and archives disagree about leading zeros.
    stem = name.removesuffix(".mp4")
    return int(stem) if stem.isdecimal() else stem
