r"""Conversation JSON, the form of R1-Omni's and HumanOmni's training files.

    [{"video": "path", "conversations": [{"from": "human", "value": "<video>\n<audio>\n…"},
                                         {"from": "gpt", "value": "sad"}]}]

The reply is a bare label, a reasoned answer (`<think>…</think>\n<answer>…</answer>`), or a
description in sentences, which becomes the row's reason.

A path is taken from the folder on; a bare name may lie in any folder. An absolute path may be of the machine that wrote
the file: then its last parts are, a folder at least, and what two such paths could mean is neither's.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from emostream.answers import parse_answer
from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS, OTHER
from training.corpora.candidates import Candidate, Options, Skipped
from training.corpora.clips import ClipFinder
from training.corpora.tables import read_text
from training.data.manifest import Row

LONGEST_ANSWER_WORDS: Final = 8
"""A bare reply of more words is a description, not the name of an emotion."""


_SPLITS: Final = {
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "ood": "ood",
}


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of one JSON file, or of all in a folder; the word "test" in a name makes test rows.

    Raises:
        ConfigError: There is no JSON file, or one is not of this form.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    if not files:
        raise ConfigError(f"{folder}: no JSON file found; wanted conversations in *.json")
    clips = ClipFinder(folder.parent if folder.is_file() else folder, options)
    listed = [
        (item, f"{file}[{index}]", split_of(file.stem))
        for file in files
        for index, item in enumerate(_items(file, options))
    ]
    found = _found({name for item, _, _ in listed if (name := _name(item))}, clips)
    for item, where, split in listed:
        yield _candidate(item, where, split, found, clips, options)
    yield from clips.left_out


def split_of(stem: str) -> str:
    """The split that a file's name says, as a word of it (`my_test`, `MERTest2025`); else train."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", stem)
    return next((_SPLITS[word.lower()] for word in words if word.lower() in _SPLITS), "train")


def _items(file: Path, options: Options) -> list[Any]:
    try:
        items = json.loads(read_text(file, options))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(items, list):
        raise ConfigError(f"{file}: wanted a list of conversations, found {type(items).__name__}")
    return items


def _name(item: Any) -> str | None:
    name = item.get("video", item.get("audio")) if isinstance(item, dict) else None
    return name if isinstance(name, str) and name.strip() else None


def _candidate(
    item: Any,
    where: str,
    split: str,
    found: dict[str, Path | Skipped],
    clips: ClipFinder,
    options: Options,
) -> Candidate:
    if not isinstance(item, dict) or not isinstance(item.get("conversations"), list):
        raise ConfigError(f'{where}: wanted an object with "video" and "conversations"')
    name = _name(item)
    if name is None:
        return Skipped(where, "no video")
    replies = [
        turn.get("value")
        for turn in item["conversations"]
        if isinstance(turn, dict) and turn.get("from") in ("gpt", "assistant")
    ]
    if not replies or not isinstance(replies[0], str) or not replies[0].strip():
        return Skipped(name, "no reply")
    path = found.get(name) or clips.missing(name)
    if isinstance(path, Skipped):
        return path
    return _row(path, replies[0].strip(), split, options, name)


def _row(path: Path, reply: str, split: str, options: Options, name: str) -> Candidate:
    answer = parse_answer(reply, options.labels or MAFW_LABELS, bare=True)
    label = None if answer.label == OTHER else answer.label
    if answer.answer is None:
        return Skipped(name, "a reply without an answer")
    if label is None and not answer.think and len(reply.split()) > LONGEST_ANSWER_WORDS:
        return Row(path=path, label=None, split=split, reason=reply)
    return Row(
        path=path, label=label, split=split, answer=answer.answer, reason=answer.think or None
    )


def _found(names: set[str], clips: ClipFinder) -> dict[str, Path | Skipped]:
    """Name -> its clip, or why there is none; those that are missing are left out."""
    found: dict[str, Path | Skipped] = {}
    moved: dict[Path, list[str]] = defaultdict(list)
    for name in names:
        if path := clips.listed(name):
            found[name] = path
        elif path := _moved(name, clips):
            moved[path].append(name)
    certain = set(found.values())
    for path, claims in moved.items():
        for name in claims:
            alone = len(claims) == 1 and path not in certain
            found[name] = path if alone else Skipped(name, "could be the clip of another path")
    return found


def _moved(name: str, clips: ClipFinder) -> Path | None:
    """The clip of an absolute path of another machine: the longest end of it that is here and has a folder."""
    name = name.replace("\\", "/")
    if not re.match(r"/|[A-Za-z]:/", name):
        return None
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    ends = ("/".join(parts[start:]) for start in range(len(parts) - 1))
    return next((path for end in ends if (path := clips.listed(end))), None)
