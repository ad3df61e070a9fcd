"""Real media files for tests: small, decodable, made with PyAV."""

from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    video: bool = True,
    audio: np.ndarray | bool = True,
    brightness: int = 90,
) -> Path:
    """Write a clip: 64×48 video at 10 fps (mpeg4), mono AAC at 16 kHz or the samples given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = _tone(seconds) if audio is True else audio
    with av.open(str(path), "w") as container:
        if video:
            stream = container.add_stream("flv" if path.suffix == ".flv" else "mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if pcm is not False:
            codec = {".flv": "aac", ".wav": "pcm_s16le", ".mp3": "mp3"}.get(path.suffix, "aac")
            sound = container.add_stream(codec, rate=16_000, layout="mono")
        if video:
            for i in range(round(10 * seconds)):
                image = np.full((48, 64, 3), (brightness + 3 * i) % 256, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if pcm is not False:
            samples = (np.clip(pcm, -1, 1) * 32767).astype(np.int16)[None, :]
            for start in range(0, samples.shape[1], 1024):
                chunk = np.ascontiguousarray(samples[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def _tone(seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * 16_000)) / 16_000
    return 0.2 * np.sin(2 * np.pi * 220 * t)
