"""What the command line says of sources: names, files, URLs, devices."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from emostream.errors import ConfigError
from emostream.file_names import find_file
from emostream.urls import hide_secrets, is_url
from stream.pubsub.messages import SOURCE_PATTERN

NO_DEVICE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaSource:
    """A file or URL that gives both streams.

    Attributes:
        name: Source name.
        location: File name or URL.
        audio_track: Which of a file's sound tracks, from 1; None takes the best one with sound in it.
    """

    name: str
    location: str = field(repr=False)
    audio_track: int | None = None

    @property
    def is_url(self) -> bool:
        """Whether it is a URL, which gives a live stream or a recording."""
        return is_url(self.location)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSource:
    """A camera and a microphone.

    Attributes:
        name: Source name.
        video: Camera index or URL; None without one.
        audio: Microphone name or index, empty for the default; None without one.
        frozen_after_s: A picture that repeats to the last bit for so long is frozen; 0 accepts stills, None is 5.
    """

    name: str
    video: str | None = field(repr=False)
    audio: str | None
    frozen_after_s: float | None = None


Source = MediaSource | DeviceSource


def parse_sources(
    sources: Sequence[str],
    video: str | None,
    audio: str | None,
    name: str,
    audio_track: int | None = None,
    frozen_after_s: float | None = None,
) -> list[Source]:
    """Sources of `--source`, `--video`, `--audio`, `--name`, `--audio-track` and `--frozen-after-s`.

    Without any `--source` the default camera and microphone are meant; `none` leaves a device out.

    Raises:
        ConfigError: A file that does not exist, a name that no topic may carry, two sources of one name, a time below
            0, or nothing.
    """
    if frozen_after_s is not None and not 0 <= frozen_after_s < math.inf:
        raise ConfigError(f"--frozen-after-s {frozen_after_s:g}: wanted seconds, or 0 for stills.")
    out: list[Source] = []
    for text in sources:
        given, equals, location = text.partition("=")
        # A URL's query and a file's name may hold "=", a source name no "/", ":" or "?".
        if not equals or not re.fullmatch(SOURCE_PATTERN, given) or find_file(text).is_file():
            given, location = "", text
        if not is_url(location) and not find_file(location).is_file():
            name, equals, file = text.partition("=")
            shown = hide_secrets(text)
            if not given and equals and (is_url(file) or find_file(file).is_file()):
                raise ConfigError(f"--source {shown}: {_bad_name(name)}")
            raise ConfigError(
                f"--source {shown}: there is no such file; give a file, a URL, or NAME=FILE."
            )
        location = _without_spaces(location)
        source_name = given or name_of(location, out)
        out.append(MediaSource(name=source_name, location=location, audio_track=audio_track))
    if not sources or video is not None or audio is not None:
        camera = _device(video, default="0")
        microphone = _device(audio, default="")
        if camera is None and microphone is None:
            raise ConfigError("--video none --audio none: nothing is left to watch or hear.")
        out.append(
            DeviceSource(name=name, video=camera, audio=microphone, frozen_after_s=frozen_after_s)
        )
    names = [source.name for source in out]
    for source in out:
        if not re.fullmatch(SOURCE_PATTERN, source.name):
            raise ConfigError(_bad_name(source.name))
        if names.count(source.name) > 1:
            raise ConfigError(f"two sources are called {source.name}; name one with NAME=FILE.")
    return out


def _bad_name(name: str) -> str:
    return f"source name {name!r}: wanted 1 to 32 letters, digits, '-' or '_'."


def _device(text: str | None, default: str) -> str | None:
    if text is None:
        return default
    return None if text == NO_DEVICE else _without_spaces(text)


def _without_spaces(location: str) -> str:
    """A URL's spaces, which it may not have, as FFmpeg takes them; a text that holds the URL ends it at a space."""
    return re.sub(r"\s", lambda space: quote(space[0]), location) if is_url(location) else location


def name_of(location: str, taken: Sequence[Source] = ()) -> str:
    """A source name from a file name or URL that no source has yet."""
    stem = Path(location.split("?")[0].rstrip("/")).stem if not is_url(location) else "url"
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:28] or "source"
    names = {source.name for source in taken}
    return next(n for i in range(1, 1000) if (n := base if i == 1 else f"{base}-{i}") not in names)
