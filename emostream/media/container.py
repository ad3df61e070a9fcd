"""Opening files and URLs with FFmpeg."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import av.stream

from emostream.errors import MediaError
from emostream.file_names import find_file
from emostream.urls import is_url

#: Demuxers that take any text for a terminal animation.
TEXT_FORMATS = frozenset(("tty", "ansi", "bin", "xbin", "idf"))

#: A title in another encoding is no reason to refuse a file; from 19 on, PyAV keeps such bytes by itself.
_TOLERANT: dict[str, Any] = {}
if int(av.__version__.partition(".")[0]) < 19:
    _TOLERANT["metadata_errors"] = "replace"


class Connection(Protocol):
    """What a URL gives, where something else than FFmpeg reads it."""

    format: str  # FFmpeg's name of the container

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end."""

    def close(self) -> None:
        """Close it; the reader does so when it is closed."""


def open_container(
    source: str | Path,
    open_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    options: Mapping[str, str] | None = None,
    connection: Connection | None = None,
) -> Any:
    """Open a file or URL for reading; returns an `av` input container, to be closed.

    Arguments are those of `MediaReader`.

    Raises:
        MediaError: It is missing, empty, not media, or the server does not answer.
    """
    name, timeout = str(source), (open_timeout_s, read_timeout_s)
    if not is_url(source):
        path = find_file(source)
        if not path.exists():
            raise MediaError(f"{source}: no such file")
        if path.is_dir():
            raise MediaError(f"{source}: is a folder; wanted a media file")
        if path.is_file() and path.stat().st_size == 0:
            raise MediaError(f"{source}: is empty (0 bytes); record or copy it again")
        # The protocol is named so that FFmpeg does not take a colon in the file's name for one.
        name, timeout = f"file:{path}", (None, None)
    defaults = {"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {}
    try:
        container = av.open(
            connection or name,
            "r",
            format=connection.format if connection else None,
            options={**defaults, **(options or {})},
            timeout=timeout,
            **_TOLERANT,
        )
    except av.error.ExitError as error:
        raise MediaError(
            f"{source}: no answer within {open_timeout_s} s; is the server up and the address right?"
        ) from error
    except av.error.FFmpegError as error:
        raise MediaError(_open_message(source, error)) from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise MediaError(f"{source}: is text; wanted a video or audio file")
    return container


def _open_message(source: str | Path, error: Any) -> str:
    cut = isinstance(error, av.error.EOFError) or (
        error.errno == errno.EIO and not is_url(source)  # Matroska's word for it
    )
    if cut:
        return f"{source}: ends before it has said what it holds; record or copy it again"
    if not isinstance(error, av.error.InvalidDataError):
        return f"{source}: cannot be opened: {error.strerror or type(error).__name__}"
    if not is_url(source) and _begins_as_mp4(Path(source)):
        return (
            f"{source}: begins as MP4 but its index (moov) is missing, as when a recording or a copy is cut short; "
            "repair it with a tool such as untrunc, or record to MKV, which survives being cut"
        )
    return f"{source}: not a video or audio file that FFmpeg {av.ffmpeg_version_info} can read"


def _begins_as_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"
