"""DFEW (Jiang et al. 2020): 16k film clips, seven emotions, five published folds.

EmoLabel_DataSplit/{train,test}(single-labeled)/set_{1..5}.csv     video_name,label (1 to 7)
part_{1..11}/{n}.mp4                                               here or in any folder below
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from emostream.labels import CORPUS_LABELS
from training.corpora.candidates import Candidate, Options, corpus_label
from training.corpora.clips import ClipFinder, stem_of
from training.corpora.tables import read_csv
from training.data.manifest import Row


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of one fold.

    Raises:
        ConfigError: A list is missing, or a label is not one of the seven.
    """
    lists = folder / "EmoLabel_DataSplit"
    finder = ClipFinder(folder, options)
    numbered: dict[int | str, list[Path]] = defaultdict(list)
    for path in finder:
        numbered[_number(path.name)].append(path)
    clips = {number: finder.only(str(number), paths) for number, paths in numbered.items()}
    for split in ("train", "test"):
        path = lists / f"{split}(single-labeled)" / f"set_{options.fold}.csv"
        for line, row in read_csv(path, ("video_name", "label"), options):
            label = corpus_label(row["label"], CORPUS_LABELS["dfew"], f"{path}:{line}")
            clip = clips.get(_number(row["video_name"]))
            if clip is None:
                yield finder.missing(row["video_name"])
            else:
                yield Row(path=clip, label=label, split=split)
    yield from finder.left_out


def _number(name: str) -> int | str:
    # Lists and archives disagree about leading zeros.
    stem = stem_of(name)
    return int(stem) if stem.isdecimal() else stem
