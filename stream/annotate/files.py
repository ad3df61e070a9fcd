"""Media files, named by paths, folders, globs, manifests or fsspec URLs, and where their results go."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from emostream.errors import ConfigError

#: Ending of a file that lists others.
MANIFEST: Final = ".jsonl"

#: What is taken from a folder; files that are named, or that a glob names, are taken whatever they are called.
SUFFIXES: Final = frozenset(
    (
        *(
            "3gp",
            "avi",
            "flv",
            "m2ts",
            "m4v",
            "mkv",
            "mov",
            "mp4",
            "mpeg",
            "mpg",
            "mts",
            "mxf",
            "ogv",
        ),
        *(
            "ts",
            "vob",
            "webm",
            "wmv",
            "aac",
            "aif",
            "aiff",
            "amr",
            "caf",
            "flac",
            "m4a",
            "mka",
            "mp2",
        ),
        *("mp3", "oga", "ogg", "opus", "wav", "wma"),
    )
)


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One file to annotate.

    Attributes:
        path: Local path, or fsspec URL.
        name: Path below what the user named, with `/`: results are called after it.
        size: Bytes.
        stamp: Says with the size whether the file is still the same.
    """

    path: str
    name: str
    size: int
    stamp: str


def find(paths: Sequence[str]) -> list[MediaFile]:
    """The files that paths stand for, by name.

    Raises:
        ConfigError: A path stands for nothing, or the results of two files would have the same name.
    """
    found: dict[str, MediaFile] = {}
    for path in paths:
        files = list(_expand(path))
        if not files:
            raise ConfigError(f"annotate: {path}: there is no such media file or folder of them.")
        for file in files:
            other = found.setdefault(file.name, file)
            if other.path != file.path:
                raise ConfigError(
                    f"annotate: the results of {other.path} and {file.path} would have the same name, {file.name}; "
                    "name a folder above both of them, or annotate them into two folders."
                )
    return sorted(found.values(), key=lambda file: file.name)


def _expand(path: str) -> Iterator[MediaFile]:
    filesystem, root = filesystem_of(path)
    if filesystem.isfile(root):
        if root.endswith(MANIFEST):
            yield from _listed(filesystem, root, path)
        else:
            yield _media_file(filesystem, root, PurePosixPath(root).name)
    elif filesystem.isdir(root):
        for found in _below(filesystem, root):
            yield _media_file(filesystem, found, found[len(root) :].lstrip("/"))
    else:
        for found in sorted(filesystem.glob(root)):
            if filesystem.isfile(found):
                yield _media_file(filesystem, found, PurePosixPath(found).name)


def _listed(filesystem: Any, manifest: str, shown: str) -> Iterator[MediaFile]:
    """The files of a manifest, a JSON object with a `path` a line, each once; relative ones are beside it."""
    lines = filesystem.cat_file(manifest).decode("utf-8", "replace").split("\n")
    folder = manifest.rpartition("/")[0]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            named = json.loads(line)["path"]
        except (ValueError, TypeError, KeyError):
            named = None
        if not isinstance(named, str) or not named:
            raise ConfigError(f'annotate: {shown}:{number}: wanted a JSON object with a "path".')
        elsewhere = "://" in named or os.path.isabs(named)
        below = posixpath.normpath(named)
        owner, path = filesystem_of(named) if elsewhere else (filesystem, f"{folder}/{below}")
        name = PurePosixPath(path).name if elsewhere or below.startswith("..") else below
        try:
            yield _media_file(owner, path, name)
        except OSError:
            yield MediaFile(_location(owner, path), name, 0, "")  # whoever fetches it says so


def _below(filesystem: Any, root: str) -> Iterable[str]:
    for found in filesystem.find(root):
        parts = PurePosixPath(found[len(root) :]).parts
        hidden = any(part.startswith(".") for part in parts)
        if not hidden and PurePosixPath(found).suffix[1:].lower() in SUFFIXES:
            yield found


def _media_file(filesystem: Any, path: str, name: str) -> MediaFile:
    info = filesystem.info(path)
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or ""
    return MediaFile(_location(filesystem, path), name, info["size"], str(changed))


def _location(filesystem: Any, path: str) -> str:
    return path if "file" in filesystem.protocol else str(filesystem.unstrip_protocol(path))


def filesystem_of(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Fsspec's file system of a path or URL, and the path in it, absolute where it is local.

    Raises:
        ConfigError: The URL's protocol is unknown, or its package is not installed.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(os.fspath(path))
    except (ValueError, ImportError) as error:
        raise ConfigError(f"annotate: {path}: {error}") from error
    return filesystem, root
