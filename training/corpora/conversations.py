r"""Conversation JSON, the form of R1-Omni's and HumanOmni's training files.

    [{"video": "path", "conversations": [{"from": "human", "value": "<video>\n<audio>\n…"},
                                         {"from": "gpt", "value": "sad"}]}]

The reply is a bare label, a reasoned answer (`<think>…</think>\n<answer>…</answer>`), or a
description in sentences, which becomes the row's reason. Such files carry paths of the machine that
wrote them; a path that does not exist is looked for below the folder by its last parts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from emostream.answers import parse_answer
from emostream.errors import ConfigError
from emostream.labels import MAFW_LABELS, OTHER
from training.corpora.candidates import Candidate, ClipFinder, Options, Skipped
from training.data.manifest import Row

LONGEST_ANSWER_WORDS: Final = 8
"""A bare reply of more words is a description, not the name of an emotion."""


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips of one JSON file, or of all in a folder; a name with "test" makes test rows.

    Raises:
        ConfigError: There is no JSON file, or one is not of this form.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    if not files:
        raise ConfigError(f"{folder}: no JSON file found; wanted conversations in *.json")
    clips = ClipFinder(folder.parent if folder.is_file() else folder, options)
    for file in files:
        split = next((s for s in ("test", "val", "ood") if s in file.stem.lower()), "train")
        for index, item in enumerate(_items(file)):
            yield _candidate(item, f"{file}[{index}]", split, clips, options)


def _items(file: Path) -> list[Any]:
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(items, list):
        raise ConfigError(f"{file}: wanted a list of conversations, found {type(items).__name__}")
    return items


def _candidate(item: Any, where: str, split: str, clips: ClipFinder, options: Options) -> Candidate:
    if not isinstance(item, dict) or not isinstance(item.get("conversations"), list):
        raise ConfigError(f'{where}: wanted an object with "video" and "conversations"')
    name = item.get("video", item.get("audio"))
    if not isinstance(name, str):
        return Skipped(where, "no video")
    replies = [
        turn.get("value")
        for turn in item["conversations"]
        if isinstance(turn, dict) and turn.get("from") in ("gpt", "assistant")
    ]
    if not replies or not isinstance(replies[0], str) or not replies[0].strip():
        return Skipped(name, "no reply")
    path = _resolve(name, clips)
    if path is None:
        return Skipped(name, "missing")
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


def _resolve(name: str, clips: ClipFinder) -> Path | None:
    as_given = Path(name)
    if as_given.is_absolute() and as_given.is_file():
        return as_given
    parts = [part for part in as_given.parts if part not in (as_given.anchor, "..", ".")]
    for start in range(len(parts)):
        path = clips.root.joinpath(*parts[start:])
        if path.is_file():
            return path
    return clips.find(as_given.name)
