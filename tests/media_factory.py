"""Real media files for tests, written with PyAV: what they show and sound like is known to the frame and sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Picture = Callable[[int, float, tuple[int, int]], NDArray[np.uint8]]
Sound = Callable[[NDArray[np.float64]], NDArray[np.floating]]

NUMBER_BITS = 10
#: Fine enough for any time that tests ask for, and within the 65535 of MPEG-4.
TICKS_PER_S = 48_000


def numbered(number: int, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture that carries its number as ten black or white blocks over its whole width: (H, W, 3) uint8."""
    width, height = size
    columns = np.arange(width) * NUMBER_BITS // width
    bits = (number >> columns) & 1
    return np.broadcast_to((bits * 255).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def read_number(rgb: NDArray[np.uint8]) -> int:
    """The number of a `numbered` picture, after whatever compression it went through."""
    width = rgb.shape[1]
    total = 0
    for bit in range(NUMBER_BITS):
        left, right = width * bit // NUMBER_BITS, width * (bit + 1) // NUMBER_BITS
        margin = (right - left) // 4
        total |= int(rgb[:, left + margin : right - margin].mean() > 127) << bit
    return total


def corners(number: int, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A grey picture whose top left quarter is red, top right green, bottom left blue."""
    width, height = size
    rgb = np.full((height, width, 3), 128, dtype=np.uint8)
    rgb[: height // 2, : width // 2] = (255, 0, 0)
    rgb[: height // 2, width // 2 :] = (0, 255, 0)
    rgb[height // 2 :, : width // 2] = (0, 0, 255)
    return rgb


def flash(at_s: float, length_s: float = 0.1) -> Picture:
    """Black, and white for `length_s` from `at_s` on."""

    def picture(number: int, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        lit = at_s - 1e-6 <= time_s < at_s + length_s
        return np.full((size[1], size[0], 3), 255 if lit else 0, dtype=np.uint8)

    return picture


def tone(frequency_hz: float = 440.0, amplitude: float = 0.5) -> Sound:
    """A steady sine."""
    return lambda times_s: amplitude * np.sin(2 * np.pi * frequency_hz * times_s)


def beep(at_s: float, length_s: float = 0.1, frequency_hz: float = 1000.0) -> Sound:
    """Silence, and a sine for `length_s` from `at_s` on."""

    def sound(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        on = (times_s >= at_s) & (times_s < at_s + length_s)
        return 0.8 * on * np.sin(2 * np.pi * frequency_hz * (times_s - at_s))

    return sound


def noise(seed: int = 0, amplitude: float = 0.2) -> Sound:
    """White noise: no stretch of it resembles another."""
    return lambda times_s: amplitude * np.random.default_rng(seed).standard_normal(len(times_s))


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video stream to be written.

    Attributes:
        duration_s, fps: Length and rate, unless `times_s` is given.
        times_s: Presentation times from the stream's start, for a variable frame rate.
        start_s: Added to every time.
        size: Width and height in pixels as stored.
        codec: FFmpeg's encoder.
        keyframe_every: Frames from keyframe to keyframe.
        rotation_deg, hflip: What display is told to do: counter-clockwise rotation, then mirroring.
        picture: Gives frame `number` at stream time `time_s` of `size`.
        lost: Packets with times in any of these ranges, container time, are left out.
        options: Of the encoder.
    """

    duration_s: float = 2.0
    fps: float = 25.0
    times_s: Sequence[float] | None = None
    start_s: float = 0.0
    size: tuple[int, int] = (160, 120)
    codec: str = "libx264"
    keyframe_every: int = 12
    rotation_deg: int = 0
    hflip: bool = False
    picture: Picture = numbered
    lost: Sequence[tuple[float, float]] = ()
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Audio:
    """An audio stream to be written.

    Attributes:
        duration_s: Length.
        rate_hz: Sample rate.
        layout: FFmpeg's name of the channel layout.
        start_s: Time of the first sample in the container.
        codec: FFmpeg's encoder.
        sound: Gives (N,) samples for all channels, or (C, N), at (N,) times from the stream's start.
        lost: Packets with times in any of these ranges, container time, are left out.
        options: Of the encoder.
    """

    duration_s: float = 2.0
    rate_hz: int = 48_000
    layout: str = "mono"
    start_s: float = 0.0
    codec: str = "aac"
    sound: Sound = field(default_factory=tone)
    lost: Sequence[tuple[float, float]] = ()
    options: dict[str, str] = field(default_factory=dict)


def write_media(
    path: Path,
    video: Video | None = None,
    audio: Audio | None = None,
    options: dict[str, str] | None = None,
    more_audio: Sequence[Audio] = (),
) -> Path:
    """Write a file whose container is told by its suffix, streams interleaved; `options` are the muxer's."""
    tracks = [track for track in (audio, *more_audio) if track is not None]
    with av.open(str(path), "w", options=options or {}) as container:
        # All streams must be there before the first packet, all encoders open before the header.
        video_stream = _add_video(container, video) if video else None
        audio_streams = [_add_audio(container, track) for track in tracks]
        packets = []
        if video is not None:
            packets += _kept(_encode_video(video_stream, video), video.lost)
        for stream, track in zip(audio_streams, tracks, strict=True):
            packets += _kept(_encode_audio(stream, track), track.lost)
        container.start_encoding()  # writes the header even of a file without packets
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def flash_and_beep(
    path: Path, at_s: float = 1.0, video: Video | None = None, audio: Audio | None = None
) -> Path:
    """A flash and a beep that begin together at `at_s` of the container's time."""
    video, audio = video or Video(), audio or Audio()
    return write_media(
        path,
        Video(**{**vars(video), "picture": flash(at_s - video.start_s)}),
        Audio(**{**vars(audio), "sound": beep(at_s - audio.start_s)}),
    )


def truncate(path: Path, keep: float) -> Path:
    """Cut a file off after a fraction of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def damage(path: Path, start: float, stop: float, seed: int = 0) -> Path:
    """Overwrite a stretch of a file, given in fractions of its bytes, with noise."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    path.write_bytes(data)
    return path


def _add_video(container: Any, video: Video) -> Any:
    rate = Fraction(video.fps).limit_denominator(1001)
    stream = container.add_stream(video.codec, rate=rate)
    stream.width, stream.height = video.size
    stream.pix_fmt = "yuvj420p" if video.codec == "mjpeg" else "yuv420p"
    even = video.times_s is None and float(video.start_s * rate).is_integer()
    stream.codec_context.time_base = 1 / rate if even else Fraction(1, TICKS_PER_S)
    stream.codec_context.gop_size = video.keyframe_every
    quick = {
        "libx264": {"preset": "veryfast", "threads": "1"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
    }
    stream.options = {**quick.get(video.codec, {}), **video.options}
    if video.rotation_deg or video.hflip:
        stream.set_display_rotation(video.rotation_deg, hflip=video.hflip)
    return stream


def _encode_video(stream: Any, video: Video) -> list[Any]:
    times_s = video.times_s
    if times_s is None:
        times_s = [n / video.fps for n in range(round(video.duration_s * video.fps))]
    time_base = stream.codec_context.time_base
    packets = []
    for number, time_s in enumerate(times_s):
        frame = av.VideoFrame.from_ndarray(video.picture(number, time_s, video.size))
        frame.pts = round((video.start_s + time_s) / time_base)
        frame.time_base = time_base
        packets += stream.encode(frame)
    return packets + stream.encode()


def _add_audio(container: Any, audio: Audio) -> Any:
    stream = container.add_stream(audio.codec, rate=audio.rate_hz, layout=audio.layout)
    stream.options = dict(audio.options)
    return stream


def _encode_audio(stream: Any, audio: Audio) -> list[Any]:
    count = round(audio.duration_s * audio.rate_hz)
    channels = len(av.AudioLayout(audio.layout).channels)
    samples = np.asarray(audio.sound(np.arange(count) / audio.rate_hz), dtype=np.float32)
    samples = np.broadcast_to(samples, (channels, count))
    packets = []
    for start in range(0, count, 1024):
        # Interleaved: PyAV takes no more than seven planes.
        interleaved = np.ascontiguousarray(samples[:, start : start + 1024].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", audio.layout)
        frame.sample_rate = audio.rate_hz
        frame.time_base = Fraction(1, audio.rate_hz)
        frame.pts = start + round(audio.start_s * audio.rate_hz)
        packets += stream.encode(frame)
    return packets + stream.encode()


def _kept(packets: list[Any], lost: Sequence[tuple[float, float]]) -> list[Any]:
    return [
        packet
        for packet in packets
        if packet.dts is not None
        and not any(start <= packet.pts * packet.time_base < stop for start, stop in lost)
    ]
