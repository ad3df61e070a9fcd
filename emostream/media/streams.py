"""Which streams of a container are meant, and what they are."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error
import av.stream
import numpy as np

from emostream.errors import MediaError
from emostream.file_names import find_file
from emostream.media.container import open_container
from emostream.media.info import AudioInfo, MediaInfo, Modality, VideoInfo
from emostream.media.pcm import frame_samples, to_mono
from emostream.urls import is_url

#: Elementary video streams: nothing in them says when a frame was taken.
UNTIMED_VIDEO = frozenset(("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo"))
#: What their servers pace, even if it has an end.
SERVED_LIVE = frozenset(("rtsp", "sdp", "rtp"))
LISTS = frozenset(("hls", "dash"))
#: A sound track whose samples stay below this is silent: dither and noise of codecs do.
SILENT = 1e-3
#: How much of a sound track is listened to before it is taken for silent, seconds.
LISTEN_S = 60.0


def streams_of(container: Any, kind: Modality) -> list[Any]:
    """The streams of a kind, in the container's order; cover art is none."""
    return [
        stream
        for stream in container.streams
        if stream.type == kind and not stream.disposition & av.stream.Disposition.attached_pic
    ]


def pick_stream(container: Any, kind: Modality) -> Any | None:
    """The stream of a kind that FFmpeg deems best, among those that can be decoded if any can; no cover art."""
    streams = streams_of(container, kind)
    pool = [stream for stream in streams if stream.codec_context is not None] or streams
    best = container.streams.best(kind)
    return best if best in pool else pool[0] if pool else None


def describe(container: Any, source: str | Path, audio_track: int | None = None) -> MediaInfo:
    """`MediaInfo` of an open container.

    Args:
        container: The container.
        source: What was opened.
        audio_track: Which of several sound tracks, from 1; None takes the best one with sound in it.

    Raises:
        MediaError: It has neither video nor audio, or no such sound track.
    """
    video, audio = pick_stream(container, "video"), pick_stream(container, "audio")
    if video is None and audio is None:
        raise MediaError(f"{source}: has neither video nor audio ({container.format.name})")
    tracks = streams_of(container, "audio")
    track, choice = _choose_track(tracks, audio, source, audio_track)
    if audio is not None:
        audio = tracks[track - 1]
    picked = [stream for stream in (video, audio) if stream is not None]
    starts = {
        stream.type: float(stream.start_time * stream.time_base)
        for stream in picked
        if stream.start_time is not None
    }
    zero_s = min(starts.values(), default=None if is_url(source) else 0.0)
    origin_s = zero_s or 0.0
    ends = [
        float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        for stream in picked
        if stream.duration
    ]
    if not ends and container.duration:
        ends = [((container.start_time or 0) + container.duration) / av.time_base]
    audio_start_s = starts.get("audio", origin_s) - origin_s
    info = MediaInfo(
        path=str(source),
        format=container.format.name,
        duration_s=max(0.0, max(ends) - origin_s) if ends else None,
        video=None if video is None else _video(video, starts.get("video", origin_s) - origin_s),
        audio=None if audio is None else _audio(audio, audio_start_s, track, choice),
        zero_s=zero_s,
        recorded=True,
    )
    return replace(info, recorded=_is_recording(container, info)) if is_url(source) else info


def _is_recording(container: Any, info: MediaInfo) -> bool:
    """Whether what a URL gives has an end: its header or its server says how long it is, and it is no live format."""
    formats = set(info.format.split(","))
    if formats & SERVED_LIVE or info.is_picture:
        return False
    # A list of pieces has a length of its own, and so has what some cameras say of motion JPEG.
    return info.duration_s is not None or (
        not formats & (UNTIMED_VIDEO | LISTS) and container.size > 0
    )


def _choose_track(
    tracks: list[Any], best: Any, source: str | Path, wanted: int | None
) -> tuple[int, str]:
    """The sound track to hear, from 1, and why, if there are several."""
    count = len(tracks)
    if wanted is not None and not 1 <= wanted <= count:
        raise MediaError(f"{source}: has no sound track {wanted}; they are numbered 1 to {count}")
    if count < 2:
        return 1, ""
    if wanted is not None:
        return wanted, f"hears sound track {wanted} of {count}"
    preferred = tracks.index(best) + 1
    if is_url(source):  # what has been heard of a live stream cannot be read again
        track = preferred
    else:
        status = find_file(source).stat()
        track = _track_with_sound(str(source), status.st_size, status.st_mtime_ns, preferred)
    why = "" if track == preferred else f", as track {preferred} is silent"
    return track, f"hears sound track {track} of {count}{why}; --audio-track takes another"


@functools.lru_cache(maxsize=1024)
def _track_with_sound(source: str, size: int, changed_ns: int, preferred: int) -> int:
    """`preferred`, from 1, if there is sound in it or in none; else the first other one with sound."""
    with open_container(source) as container:
        tracks = streams_of(container, "audio")
        sounding: set[int] = set()
        decodable = [stream for stream in tracks if stream.codec_context is not None]
        for packet in container.demux(decodable):
            track = tracks.index(packet.stream) + 1
            if track not in sounding and _has_sound(packet):
                sounding.add(track)
            heard_s = 0.0 if packet.pts is None else float(packet.pts * packet.time_base)
            if preferred in sounding or heard_s > LISTEN_S:
                break
    return preferred if preferred in sounding else min(sounding, default=preferred)


def _has_sound(packet: Any) -> bool:
    try:
        frames = packet.decode()
    except av.error.FFmpegError:
        return False  # reading will count it
    for frame in frames:
        samples, _ = frame_samples(frame)
        channels = to_mono(
            samples.reshape(1, -1)
        )  # each sample by itself: opposite channels do not cancel
        if np.abs(channels).max(initial=0.0) >= SILENT:
            return True
    return False


def _video(stream: Any, start_s: float) -> VideoInfo:
    codec = stream.codec_context
    rate = (stream.average_rate or stream.guessed_rate) if codec else None
    return VideoInfo(
        width=codec.width if codec else 0,
        height=codec.height if codec else 0,
        fps=float(rate) if rate else None,
        codec=codec.name if codec else "unknown",
        rotation_deg=None,
        start_s=start_s,
        decodable=codec is not None,
    )


def _audio(stream: Any, start_s: float, track: int, choice: str) -> AudioInfo:
    codec = stream.codec_context
    return AudioInfo(
        sample_rate_hz=codec.sample_rate if codec else 0,
        channels=codec.channels if codec else 0,
        codec=codec.name if codec else "unknown",
        start_s=start_s,
        decodable=codec is not None,
        track=track,
        choice=choice,
    )
