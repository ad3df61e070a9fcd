"""One pass over a file or URL that gives frames and PCM in order of presentation, with bounded memory."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from emostream.errors import MediaError
from emostream.media.container import Connection
from emostream.media.frames import TimedFrame, upright_rgb
from emostream.media.info import BOTH, SHORT_S, MediaInfo, MediaStats, Modality
from emostream.media.interleave import Interleaver
from emostream.media.pcm import (
    SAMPLE_RATE_HZ,
    PcmChunk,
    PcmTrack,
    frame_samples,
    mono_weights,
    to_mono,
)
from emostream.media.source import PacketSource
from emostream.sampling import EDGE_S, grid_index
from emostream.urls import is_url

#: Decoded frames kept, unconverted, while the audio catches up.
MAX_HELD = 32
#: Audio of which nothing has come for this long of video has ended, as far as holding frames for it goes.
AUDIO_STOPPED_S = 0.25
#: Timestamps are rounded: a stream may start by this much before it says.
START_MARGIN_S = 0.05


class MediaReader:
    """Reads a file or URL once, giving `TimedFrame` and `PcmChunk` events in order of their (start) times.

    Iterate over it, once; `next` works too. Memory is bounded: compressed data is read as it is needed, and decoded
    frames wait unconverted until the audio has caught up, `MAX_HELD` of them at most. A stream that lags by more, or by
    more than `reorder_s`, comes late: the order between the streams is lost then, that within each never.

    Args:
        source: File name, or URL that FFmpeg opens (http, https, rtsp, …). A live video without timestamps (HTTP
            MJPEG) is timed by its arrival, from 0 at its first frame.
        need: Which streams to decode, of `{"video", "audio"}`; one that is absent gives no events.
        start_s: Frames and samples before this time of the media clock are left out; reached by seeking where exact.
        end_s: Frames and samples from this time on are left out; None reads to the end.
        audio_track: Which of several sound tracks, from 1; None takes the best one with sound in it.
        want: Called with the time of each frame, in order; a frame for which it returns false is neither converted to
            RGB nor delivered. None wants all.
        grid_step_s: Deliver only the newest frame of each grid cell (t_j − step, t_j], as `grid_frames` would choose
            with all frames at hand; each comes when a frame of a later cell has been decoded, or at the end. `want` is
            asked about these only.
        chunk_s: Length of each `PcmChunk` but the last, seconds.
        reorder_s: How far one stream may come ahead of the other before it is held no longer, media seconds; None is 1
            for URLs and 60 for files, where waiting costs nothing.
        open_timeout_s: For URLs: how long opening may take.
        read_timeout_s: For URLs: how long to wait for data, and so the longest that `interrupt` may take.
        options: Passed to FFmpeg's demuxer and protocol.
        stats: Where to count; a new one if None.
        connection: What to read in place of FFmpeg's own connection to a URL; closed with the reader.

    Attributes:
        info: What the container says, the media clock included.
        stats: What reading has met so far.

    Raises:
        MediaError: On opening: missing, not media, no such track, or none of the streams needed can be decoded. While
            iterating: the network or the disk fails; what was decoded before has been delivered by then.
    """

    info: MediaInfo
    stats: MediaStats

    def __init__(
        self,
        source: str | Path,
        *,
        need: Collection[Modality] = BOTH,
        start_s: float = 0.0,
        end_s: float | None = None,
        audio_track: int | None = None,
        want: Callable[[float], bool] | None = None,
        grid_step_s: float | None = None,
        chunk_s: float = 0.1,
        reorder_s: float | None = None,
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 10.0,
        options: Mapping[str, str] | None = None,
        stats: MediaStats | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.stats = MediaStats() if stats is None else stats
        self._source = PacketSource(
            source,
            need,
            start_s,
            self.stats,
            open_timeout_s,
            read_timeout_s,
            options,
            audio_track=audio_track,
            connection=connection,
        )
        self.info = self._source.info
        self._start_s = start_s
        self._end_s = end_s
        self._want = want
        self._grid_step_s = grid_step_s
        self._chunk_samples = max(1, round(chunk_s * SAMPLE_RATE_HZ))
        if reorder_s is None:
            reorder_s = 1.0 if is_url(source) else 60.0
        self._merge = Interleaver(reorder_s)
        for kind in self._source.streams:
            stream = self.info.video if kind == "video" else self.info.audio
            assert stream is not None
            # Neither stream waits for one that starts late.
            known = self.info.zero_s is not None
            self._merge.open(
                kind,
                max(stream.start_s, start_s) - START_MARGIN_S if known else float("-inf"),
                MAX_HELD if kind == "video" else float("inf"),
            )
        self._track: PcmTrack | None = None
        self._frame_at_audio_s = 0.0  # time of the newest frame when audio came last
        self._last_frame_s: float | None = None
        self._newest: tuple[float, Any] | None = None  # of the current grid cell
        self._reached_s = 0.0
        self._events = self._run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TimedFrame | PcmChunk:
        return next(self._events)

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` or `close` has been called."""
        return self._source.stopped

    def interrupt(self) -> None:
        """End the iteration at the next packet. Callable from any thread and from signal handlers.

        A read that waits for the network ends with the data it waits for, or after `read_timeout_s`.
        """
        self._source.stop()

    def close(self) -> None:
        """Interrupt, wait for the read under way, and release the file or connection. May be called again."""
        self._source.close()

    def _run(self) -> Iterator[TimedFrame | PcmChunk]:
        failure: MediaError | None = None
        try:
            for packet in self._source:
                kind = self._source.modality(packet)
                if self._merge.ended(kind):
                    continue
                for frame in self._source.decode(packet):
                    yield from self._take(kind, frame)
                if self._merge.all_ended:
                    break
        except MediaError as error:
            failure = error
        if self.interrupted:
            return
        if failure is not None and self._at_end():
            failure = None
            for kind in self._source.streams:
                for frame in self._source.drain(kind):
                    yield from self._take(kind, frame)
        if failure is not None:
            self._newest = None  # its cell may have had a newer one
        yield from self._finish()
        if failure is not None:
            raise failure
        self._check_length()

    def _at_end(self) -> bool:
        """Whether all has come: a server that does not say how much it sends ends with a failure."""
        length_s = self.info.duration_s
        return length_s is not None and self._reached_s > length_s - SHORT_S

    def _take(self, kind: Modality, frame: Any) -> Iterator[TimedFrame | PcmChunk]:
        return self._take_video(frame) if kind == "video" else self._take_audio(frame)

    def _ready(self) -> Iterator[TimedFrame | PcmChunk]:
        for time_s, event in self._merge.ready():
            yield event if isinstance(event, PcmChunk) else TimedFrame(time_s, upright_rgb(event))

    def _take_video(self, frame: Any) -> Iterator[TimedFrame | PcmChunk]:
        time_s = self._source.time_s(frame)
        if time_s is None:
            self.stats.guessed_times += 1
            fps = (self.info.video and self.info.video.fps) or 25.0
            time_s = 0.0 if self._last_frame_s is None else self._last_frame_s + 1 / fps
        if self._last_frame_s is not None and time_s <= self._last_frame_s:
            self.stats.out_of_order += 1
            return
        self._last_frame_s = time_s
        if time_s < self._start_s - EDGE_S or self._merge.ended("video"):
            return
        if self._end_s is not None and time_s >= self._end_s - EDGE_S:
            self._end_video()
        else:
            self.stats.frames += 1
            self.stats.corrupt_frames += frame.is_corrupt
            self._reached_s = max(self._reached_s, time_s)
            if self._grid_step_s is None:
                self._put_video(time_s, frame)
            else:
                if self._newest is not None and grid_index(
                    self._newest[0], self._grid_step_s
                ) < grid_index(time_s, self._grid_step_s):
                    self._put_video(*self._newest)
                self._newest = (time_s, frame)
            self._merge.mark("video", time_s)
        self._pause_audio(time_s)
        yield from self._ready()

    def _pause_audio(self, time_s: float) -> None:
        """If audio has stopped coming, have what is held of it before the frames are let go."""
        if (
            self._track is not None
            and self._merge.overdue("video")
            and time_s - self._frame_at_audio_s > AUDIO_STOPPED_S
        ):
            for chunk in self._track.pause():
                self._merge.put("audio", chunk.start_s, chunk)
            self._merge.mark("audio", self._track.next_s)

    def _put_video(self, time_s: float, frame: Any) -> None:
        if self._want is None or self._want(time_s):
            self._merge.put("video", time_s, frame)

    def _end_video(self) -> None:
        if self._newest is not None:
            self._put_video(*self._newest)
            self._newest = None
        self._merge.end("video")

    def _take_audio(self, frame: Any) -> Iterator[TimedFrame | PcmChunk]:
        time_s = self._source.time_s(frame)
        self._frame_at_audio_s = self._last_frame_s or 0.0
        if self._track is None:
            assert self.info.audio is not None
            origin_s = self.info.audio.start_s if self.info.zero_s is not None else time_s or 0.0
            self._track = PcmTrack(origin_s, self._start_s, self._end_s, self._chunk_samples)
        samples, packed = frame_samples(frame)
        mono = to_mono(samples, packed, mono_weights(frame.layout.name))
        if not np.isfinite(mono).all():
            self.stats.decode_error("audio samples that are not numbers")
            mono = np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)
        if time_s is not None:
            self._reached_s = max(self._reached_s, time_s + frame.samples / frame.sample_rate)
        for chunk in self._track.push(time_s, mono, frame.sample_rate):
            self._merge.put("audio", chunk.start_s, chunk)
            yield from self._ready()
        self._count_audio(self._track)
        self._merge.mark("audio", self._track.next_s)
        if self._track.done:
            self._end_audio(self._track)
        yield from self._ready()

    def _end_audio(self, track: PcmTrack) -> None:
        for chunk in track.pause():
            self._merge.put("audio", chunk.start_s, chunk)
        self._count_audio(track)
        self._merge.end("audio")

    def _count_audio(self, track: PcmTrack) -> None:
        self.stats.gap_samples = track.gap_samples
        self.stats.overlap_samples = track.overlap_samples

    def _finish(self) -> Iterator[TimedFrame | PcmChunk]:
        for kind in self._source.streams:
            if self._merge.ended(kind):
                continue
            if kind == "video":
                self._end_video()
            elif self._track is not None:
                self._end_audio(self._track)
            else:
                self._merge.end("audio")
        yield from self._ready()

    def _check_length(self) -> None:
        read_all = len(self._source.streams) == sum(
            stream is not None for stream in (self.info.video, self.info.audio)
        )
        if read_all and self._end_s is None:
            self.stats.check_length(self.info, max(self._reached_s, self._start_s))
