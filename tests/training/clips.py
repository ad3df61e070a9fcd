"""Small real clips: one second, 64×48, mpeg4 and AAC unless the container asks for others."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.media_factory import Audio, Video, tone, write_media

SOUND_CODECS = {".wav": "pcm_s16le", ".mp3": "libmp3lame"}


def write_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    video: bool = True,
    audio: bool = True,
    pcm: NDArray[np.floating] | None = None,
    brightness: int = 90,
) -> Path:
    """Write a clip whose pictures brighten slowly; `pcm` (S,) is its sound at 16 kHz, or a tone."""

    def picture(number: int, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.full((size[1], size[0], 3), (brightness + 3 * number) % 256, np.uint8)

    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = seconds if pcm is None else len(pcm) / 16_000
    codec = "flv1" if path.suffix == ".flv" else "mpeg4"
    return write_media(
        path,
        Video(duration_s=seconds, fps=10, size=(64, 48), codec=codec, picture=picture)
        if video
        else None,
        Audio(
            duration_s=seconds,
            rate_hz=16_000,
            codec=SOUND_CODECS.get(path.suffix, "aac"),
            sound=tone() if pcm is None else lambda times_s: pcm[: len(times_s)],
        )
        if audio
        else None,
    )
