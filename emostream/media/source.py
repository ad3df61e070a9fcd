"""Packets of files and URLs on one continuous clock, from a point in time on, and their decoding."""

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import av.error

from emostream.errors import MediaError
from emostream.media.container import Connection, open_container
from emostream.media.frames import DecodingOrder
from emostream.media.info import BOTH, MediaStats, Modality
from emostream.media.streams import UNTIMED_VIDEO, describe, pick_stream, streams_of
from emostream.sampling import EDGE_S
from emostream.urls import is_url

#: Containers whose timestamps are stored rather than estimated, so that what is read after a seek is in its place.
#: Elsewhere (raw MP3, AAC, H.264 …) a range is reached by reading from the start.
EXACT_SEEK = frozenset(
    ("mov", "matroska", "avi", "mpegts", "ogg", "wav", "w64", "flac", "nut", "aiff", "caf", "flv")
)
#: Formats whose files are cut and joined, so that their clock may jump.
SPLICED = frozenset(("mpegts", "hls", "rtsp", "rtp", "sdp", "flv", "live_flv", "mpeg", "ogg"))
#: Audio before a range that is decoded and dropped, so that decoders and the resampler have settled by its start.
AUDIO_PREROLL_S = 1.0
#: A range that starts earlier than this is reached by decoding from the start.
SEEK_FROM_S = 3.0
#: A jump forward beyond this is a splice, not a gap (the ffmpeg command has the same threshold).
SPLICE_S = 10.0
#: Decoding times never go back in one recording; this much is allowed for rounding and reordering by networks.
SPLICE_BACK_S = 0.5
#: Failures of the demuxer in a row after which the rest is given up.
MAX_DEMUX_ERRORS = 32


class PacketSource:
    """The packets of the streams needed, in the container's order, and their decoding, with every failure counted.

    Iterate once. Each packet's timestamps are set on one continuous clock before decoding: splices are closed up, and
    packets of a live stream without timestamps get their time of arrival. Empty packets at the end let the decoders
    give out what they hold. Arguments are those of `MediaReader`.

    Attributes:
        info: What the container says.
        streams: The `av` stream of each modality that is needed, there, and decodable.
        stats: Counts, shared with the caller.
    """

    def __init__(
        self,
        source: str | Path,
        need: Collection[Modality],
        start_s: float,
        stats: MediaStats,
        open_timeout_s: float | None = None,
        read_timeout_s: float | None = None,
        options: Mapping[str, str] | None = None,
        *,
        audio_track: int | None = None,
        connection: Connection | None = None,
    ) -> None:
        if not need or not BOTH.issuperset(need):
            raise ValueError(f"need must be of {set(BOTH)}, found {need!r}")
        self.stats = stats
        self.streams: dict[Modality, Any] = {}
        self._source = source
        self._read_timeout_s = read_timeout_s
        self._connection = connection
        self._open_args = (source, open_timeout_s, read_timeout_s, options, connection)
        self._stop = threading.Event()
        # Held while FFmpeg works; re-entrant because a signal handler may close what it interrupted.
        self._native = threading.RLock()
        self._peeked: deque[Any] = deque()
        self._offset_s = Fraction(0)  # added to timestamps to close up splices
        self._next_dts_s: dict[int, Fraction] = {}
        self._arrival_zero_s: float | None = None
        self._decoding = DecodingOrder()
        self._container = open_container(*self._open_args)
        try:
            self.info = describe(self._container, source, audio_track)
            self._zero_s = self.info.zero_s
            formats = set(self.info.format.split(","))
            self._select(need)
            self._untimed = bool(
                is_url(source) and "video" in self.streams and formats & UNTIMED_VIDEO
            )
            self._no_pts = "avi" in formats
            self._may_splice = is_url(source) or bool(formats & SPLICED)
            if start_s >= SEEK_FROM_S and formats & EXACT_SEEK:
                self._seek(start_s)
        except BaseException:
            self._container.close()
            raise

    @property
    def stopped(self) -> bool:
        """Whether `stop` or `close` has been called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the iteration at the next packet. Callable from any thread and from signal handlers."""
        self._stop.set()

    def close(self) -> None:
        """Stop, wait for the call into FFmpeg under way, and release the file or connection."""
        self._stop.set()
        with self._native:
            self._container.close()
            if self._connection is not None:
                self._connection.close()

    def modality(self, packet: Any) -> Modality:
        """Which of `streams` a packet belongs to."""
        return "video" if packet.stream is self.streams.get("video") else "audio"

    def time_s(self, frame: Any) -> float | None:
        """Media time of a decoded frame, seconds; None if nothing tells it."""
        return None if frame.pts is None else self._media_s(frame.pts, frame.time_base)

    def shown_s(self, packet: Any) -> float | None:
        """Media time at which a video packet's frame will be shown, seconds; None if the packet does not tell."""
        stamp = packet.pts
        if stamp is None and not self.streams["video"].codec_context.has_b_frames:
            stamp = packet.dts
        return None if stamp is None else self._media_s(stamp, packet.time_base)

    def end_s(self, packet: Any) -> float | None:
        """Media time at which what a packet holds is over, as `MediaReader` counts it; None if it does not tell."""
        if packet.pts is None or packet.size == 0:
            return None
        # A frame lasts until the next one; the last one is over as soon as it is shown.
        lasts = 0 if self.modality(packet) == "video" else packet.duration or 0
        return self._media_s(packet.pts + lasts, packet.time_base)

    def _media_s(self, stamp: int, time_base: Fraction) -> float:
        return stamp * time_base.numerator / time_base.denominator - (self._zero_s or 0.0)

    def decode(self, packet: Any) -> list[Any]:
        """The `av` frames that a packet completes, in order of presentation; none if it is damaged."""
        kind = self.modality(packet)
        if packet.is_corrupt:
            self.stats.decode_error(f"damaged {kind} packet")
        order = self._decoding if kind == "video" else None
        if order is not None:
            order.feed(packet)
        try:
            with self._native:
                frames = [] if self.stopped else list(packet.decode())
        except av.error.EOFError:
            return []  # flushed twice
        except av.error.FFmpegError as error:
            self.stats.decode_error(f"{kind} does not decode: {error.strerror}")
            if order is not None:
                order.lost(packet)
            return []
        for left, frame in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            if frame.pts is None and order is not None:
                frame.pts = order.next(left + packet.stream.codec_context.reorder_depth)
        return frames

    def drain(self, kind: Modality) -> list[Any]:
        """The frames that a decoder still holds; it can go on at any keyframe after that."""
        stream = self.streams[kind]
        flush = av.Packet()
        flush.stream, flush.time_base = stream, stream.time_base
        frames = self.decode(flush)
        stream.codec_context.flush_buffers()
        self._decoding = DecodingOrder()
        return frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        """Packets; damage is counted and passed over.

        Raises:
            MediaError: The network or the disk fails, or sends nothing for `read_timeout_s`.
        """
        failures = 0
        while self._peeked and not self.stopped:
            yield self._retime(self._peeked.popleft())
        while failures <= MAX_DEMUX_ERRORS:
            packets = self._container.demux(list(self.streams.values()))
            try:
                while True:
                    with self._native:
                        if self.stopped:
                            return
                        packet = next(packets)
                    failures = 0
                    yield self._retime(packet)
            except (StopIteration, IndexError):
                # IndexError: at the end PyAV trips over streams that turned up while reading; ours are flushed by then.
                return
            except av.error.ExitError as error:
                raise MediaError(f"{self._source}: no data for {self._read_timeout_s} s") from error
            except (av.error.OSError, av.error.HTTPError, av.error.HTTPClientError) as error:
                raise MediaError(f"{self._source}: reading failed: {error.strerror}") from error
            except av.error.FFmpegError as error:
                failures += 1
                self.stats.decode_error(f"damaged data: {error.strerror}")
        self.stats.note("gave up on the rest of the file")

    def _select(self, need: Collection[Modality]) -> None:
        missing = []
        for kind in sorted(need, reverse=True):
            info = self.info.video if kind == "video" else self.info.audio
            if info is None:
                missing.append(f"has no {kind}")
            elif not info.decodable:
                missing.append(
                    f"its {kind} codec has no decoder in FFmpeg {av.ffmpeg_version_info}"
                )
                self.stats.note(missing[-1])
            else:
                self.streams[kind] = self._stream(kind)
                if kind == "audio" and self.info.audio and self.info.audio.choice:
                    self.stats.note(self.info.audio.choice)
        if not self.streams:
            raise MediaError(f"{self._source}: {' and '.join(missing)}")

    def _seek(self, start_s: float) -> None:
        """Move to before the range, and look at what comes to be sure of it; failing that, start at the start."""
        lead_s = AUDIO_PREROLL_S if "audio" in self.streams else 0.0
        for back_s in (lead_s, lead_s + 5, lead_s + 30):
            target_s = start_s + (self._zero_s or 0.0) - back_s
            try:
                self._container.seek(int(target_s * av.time_base))
                self._peek()
            except av.error.FFmpegError:
                continue  # no index or a broken one: a larger step may do
            if self._early_enough(start_s):
                return
        self._peeked.clear()
        self._container.close()
        self._container = open_container(*self._open_args)
        for kind in self.streams:
            self.streams[kind] = self._stream(kind)

    def _stream(self, kind: Modality) -> Any:
        if kind == "video" or self.info.audio is None:
            return pick_stream(self._container, kind)
        return streams_of(self._container, kind)[self.info.audio.track - 1]

    def _peek(self) -> None:
        self._peeked.clear()
        waiting = {stream.index for stream in self.streams.values()}
        for packet in self._container.demux(list(self.streams.values())):
            self._peeked.append(packet)
            if packet.dts is not None:
                waiting.discard(packet.stream_index)
            if not waiting or len(self._peeked) > 500:
                return

    def _early_enough(self, start_s: float) -> bool:
        for kind, stream in self.streams.items():
            timed = (p for p in self._peeked if p.stream is stream and p.dts is not None)
            first = next(timed, None)
            if first is None:
                continue  # the stream ended before the range
            stamp = first.dts if first.pts is None else first.pts
            first_s = self._media_s(stamp, first.time_base)
            if kind == "video" and not (first.is_keyframe and first_s <= start_s + EDGE_S):
                return False
            if kind == "audio" and first_s > start_s - AUDIO_PREROLL_S / 2:
                return False
        return True

    def _retime(self, packet: Any) -> Any:
        if packet.size == 0:
            if self._untimed:
                packet.time_base = Fraction(1, 1_000_000)  # of the frames it lets go
            return packet
        if self._untimed:
            now_s = time.perf_counter()
            if self._arrival_zero_s is None:
                self._arrival_zero_s, self._zero_s = now_s, 0.0
            packet.time_base = Fraction(1, 1_000_000)
            packet.pts = packet.dts = round((now_s - self._arrival_zero_s) * 1_000_000)
            return packet
        if packet.dts is None:
            return packet
        if self._no_pts and self.modality(packet) == "video":
            packet.pts = None
        dts_s = packet.dts * packet.time_base + self._offset_s
        if self._zero_s is None:
            self._zero_s = float(
                (packet.dts if packet.pts is None else packet.pts) * packet.time_base
            )
        if self._may_splice:
            jump_s = dts_s - self._next_dts_s.get(packet.stream_index, dts_s)
            if not -SPLICE_BACK_S <= jump_s <= SPLICE_S:
                self._offset_s -= jump_s
                dts_s -= jump_s
                self.stats.splices += 1
            duration_s = (packet.duration or 0) * packet.time_base
            self._next_dts_s[packet.stream_index] = dts_s + duration_s
            if self._offset_s:
                ticks = round(self._offset_s / packet.time_base)
                packet.dts += ticks
                packet.pts = None if packet.pts is None else packet.pts + ticks
        return packet
