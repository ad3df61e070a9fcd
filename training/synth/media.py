"""Clips as mp4 files: H.264 and AAC, written in one step so that a file that exists is whole."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from emostream.errors import MediaError

_VIDEO_OPTIONS = {"preset": "ultrafast", "crf": "26", "threads": "1", "g": "25"}
_AUDIO_OPTIONS = {"aac_coder": "fast"}
AUDIO_BITS_S = 64_000


def require_encoders() -> None:
    """Check that this PyAV can write our clips.

    Raises:
        MediaError: It was built without an H.264 or AAC encoder.
    """
    for name in ("libx264", "aac"):
        try:
            av.Codec(name, "w")
        except av.codec.codec.UnknownCodecError as error:
            raise MediaError(
                f"corpus synth: PyAV {av.__version__} has no {name} encoder; "
                "install the wheel from PyPI (pip install --force-reinstall av)"
            ) from error


def write_mp4(
    path: Path,
    frames: NDArray[np.uint8],
    pcm: NDArray[np.float32],
    frames_hz: float,
    sample_rate_hz: int,
) -> None:
    """Write a clip; `path` appears only when it is complete.

    Args:
        path: Ends in `.mp4`; an existing file is replaced.
        frames: (F, H, W, 3) RGB, H and W even.
        pcm: (S,) mono in [-1, 1].
        frames_hz: Frame rate.
        sample_rate_hz: Of `pcm`.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part.mp4")
    rate = Fraction(frames_hz).limit_denominator(1000)
    try:
        with av.open(str(part), "w") as container:
            video = container.add_stream("libx264", rate=rate, options=_VIDEO_OPTIONS)
            video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
            audio = container.add_stream(
                "aac", rate=sample_rate_hz, layout="mono", options=_AUDIO_OPTIONS
            )
            audio.bit_rate = AUDIO_BITS_S
            for k, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = k, 1 / rate
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            sound = av.AudioFrame.from_ndarray(pcm[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = sample_rate_hz, 0
            sound.time_base = Fraction(1, sample_rate_hz)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_whole(path: Path, duration_s: float) -> bool:
    """Whether a clip's file exists and opens with both streams and about the right length."""
    if not path.is_file():
        return False
    try:
        with av.open(str(path)) as container:
            kinds = {stream.type for stream in container.streams}
            length_s = (container.duration or 0) / av.time_base
    except av.FFmpegError:
        return False
    return kinds == {"video", "audio"} and abs(length_s - duration_s) < 0.3
