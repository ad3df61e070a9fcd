"""Finding a corpus's media files: by the path that a list gives, by name alone, or all of them."""

import filecmp
import os
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from emostream.checkpoint.files import LFS_POINTER
from emostream.errors import ConfigError
from training.corpora.candidates import Options, Skipped
from training.data.manifest import PICTURE_SUFFIXES

VIDEO_SUFFIXES: Final = (
    *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4v"),
    *(".mpg", ".mpeg", ".wmv", ".3gp"),
)
AUDIO_SUFFIXES: Final = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac")


class ClipFinder:
    """Media files below a folder, those behind links too.

    Corpora are unpacked in many ways (`part_3/`, `Clip/original/part_3/`, one flat folder). Where their lists
    name files only, `find` looks for the name; where they give paths, `listed` takes them at their word.

    Args:
        folder: Of the corpus.
        options: Which of its folders holds the clips.
        stills: Whether pictures are clips too.

    Attributes:
        root: Folder of the clips.
        left_out: Files that cannot be clips or are copies of others, as far as they have been met.
    """

    def __init__(self, folder: Path, options: Options, *, stills: bool = False) -> None:
        root = folder / options.clips if options.clips else folder
        if not root.is_dir():
            raise ConfigError(f"{root}: no such folder; wanted the folder of the corpus's clips")
        self.root = root
        self.left_out: list[Skipped] = []
        self._by_name_alone = options.by_name
        self._named: dict[str, list[Path]] = defaultdict(list)
        self._placed: dict[str, list[Path]] = defaultdict(list)
        self._pointers: dict[str, Skipped] = {}
        suffixes = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES, *(PICTURE_SUFFIXES if stills else ()))
        for path in _media_files(root, suffixes):
            try:
                path.name.encode()
            except UnicodeEncodeError:
                self.left_out.append(Skipped(path.name, "file name is not UTF-8, rename it"))
                continue
            if _is_pointer(path):
                self._pointers[_stem(path.name)] = Skipped(path.name, _POINTER)
                self.left_out.append(self._pointers[_stem(path.name)])
                continue
            self._named[_stem(path.name)].append(path)
            place = _form(path.relative_to(root).as_posix())
            for key in (place, place.removesuffix(_form(path.suffix))):
                self._placed[key].append(path)

    def __iter__(self) -> Iterator[Path]:
        """Give every clip once, sorted by name; of several formats the best, of equal copies one."""
        for name in sorted(self._named):
            yield self.only(name, _best(self._named[name]))

    def files(self) -> Iterator[Path]:
        """Give every file, whatever its name, sorted by path; not the sound that lies beside its own video."""
        beside: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for paths in self._named.values():
            for path in paths:
                beside[path.parent, _stem(path.name)].append(path)
        yield from sorted(path for paths in beside.values() for path in _best(paths))

    def find(self, name: str, *, other_suffix: bool = True) -> Path | None:
        """Find a clip by its name, wherever it lies; None if missing.

        Args:
            name: With or without suffix.
            other_suffix: Whether a file with another suffix than the name's may be it; video before audio.

        Raises:
            ConfigError: Several files could be meant.
        """
        found = self._named.get(_stem(name), [])
        exact = [p for p in found if p.name == name]
        exact = exact or [p for p in found if _form(p.name).lower() == _form(name).lower()]
        if not exact and not other_suffix and _has_suffix(name):
            return None
        chosen = exact or _best(found)
        return self.only(name, chosen) if chosen else None

    def listed(self, name: str) -> Path | None:
        """Find a clip where a list says that it is: a path from `root` on, an absolute one, or a bare name.

        None if it is missing. The suffix may be left out, folders may be parted by backslashes, and letters may be
        composed in another way. A name without folders is looked for in all of them. So is one with folders where the
        user asked for it.

        Raises:
            ConfigError: Several files could be meant.
        """
        if os.path.isfile(self.root / name):
            return None if _is_pointer(self.root / name) else self.root / name
        name = name.replace("\\", "/")
        if found := self._placed.get(_form(os.path.normpath(name))):
            return self.only(name, _best(found))
        folders, _, bare = name.rpartition("/")
        if folders and not self._by_name_alone:
            return None
        return self.find(bare, other_suffix=False)

    def missing(self, name: str) -> Skipped:
        """Say of a listed clip that was not found what is known of it."""
        bare = name.replace("\\", "/").rpartition("/")[2]
        pointer = self._pointers.get(_stem(bare))
        if pointer in self.left_out:  # one clip is counted once
            self.left_out.remove(pointer)
        return Skipped(name, pointer.reason if pointer else "missing")

    def only(self, name: str, paths: Iterable[Path]) -> Path:
        """The one clip among files of one name; equal copies are one, and noted in `left_out`.

        Raises:
            ConfigError: They differ.
        """
        first, *others = paths
        for other in others:
            if not filecmp.cmp(first, other, shallow=False):
                raise ConfigError(
                    f"{self.root}: several clips are named {name}: {first} and {other}; "
                    "name the folder to use with --clips"
                )
            copy = Skipped(str(other.relative_to(self.root)), "an equal copy of another file")
            if copy not in self.left_out:
                self.left_out.append(copy)
        return first


_POINTER: Final = "a Git LFS pointer, not the clip; `git lfs pull` fetches it"


def stem_of(name: str) -> str:
    """A clip's name without the suffix of a media file, if it has one."""
    return name.rpartition(".")[0] if _has_suffix(name) else name


def _media_files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """All of them, by folder; folders behind links after the others, each folder once."""
    waiting, seen = deque([str(root)]), set()
    while waiting:
        for folder, folders, names in os.walk(waiting.popleft()):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            inner = (os.path.join(folder, name) for name in folders)
            waiting.extend(path for path in inner if os.path.islink(path))
            for name in sorted(names):
                # A dot begins what macOS puts into archives beside each file.
                if name.lower().endswith(suffixes) and not name.startswith("."):
                    path = Path(folder, name)
                    if path.is_file():
                        yield path


def _best(paths: list[Path]) -> list[Path]:
    return [p for p in paths if p.suffix.lower() in VIDEO_SUFFIXES] or paths


def _has_suffix(name: str) -> bool:
    return name.lower().endswith((*VIDEO_SUFFIXES, *AUDIO_SUFFIXES, *PICTURE_SUFFIXES))


def _stem(name: str) -> str:
    return _form(stem_of(name)).lower()


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER
