"""Captures a network stream with both picture and sound: times on our clock, losses noticed, connections renewed."""

import threading
import time
from collections import deque

from emostream.errors import MediaError
from emostream.media import MediaReader, PcmChunk, TimedFrame
from emostream.urls import hide_secrets
from stream.capture.device import Backoff, DeviceStatus, leave
from stream.capture.process import EXIT_OK
from stream.transport.clocks import MinimumDelayMap
from stream.transport.grid_picker import GridPicker
from stream.transport.protocol import Modality
from stream.transport.sender import CaptureLink

LOST_AFTER_S = 2.0
READ_TIMEOUT_S = 5.0
OPEN_TIMEOUT_S = 10.0
STOP_WITHIN_S = 0.5
POLL_S = 0.1
CHUNK_S = 0.02
REORDER_S = 0.05  # the windower puts things in order; what waits here is late there
LATENESS_S = 0.5  # senders group packets, sound above all, and networks hold them up
OFFSET_HELD_S = 0.01  # a smaller correction of the clock is not worth tearing the sound
MODALITIES: tuple[Modality, ...] = ("video", "audio")


class SharedClock:
    """Capture times of both modalities of a connection, by one offset, so that picture and sound stay together.

    Each modality has its minimum delay; the smaller of the two is the offset, as the larger holds buffering of the
    sender's besides. It is held until it is wrong by `OFFSET_HELD_S`.
    """

    def __init__(self) -> None:
        self._maps: dict[Modality, MinimumDelayMap] = {}
        self._delays_s: dict[Modality, float] = {}
        self._offset_s: float | None = None

    def update(self, modality: Modality, presentation_s: float, arrival_s: float) -> float:
        """Offset to add to presentation times, after something presented at the first arrived at the second."""
        delay_map = self._maps.setdefault(modality, MinimumDelayMap())
        reanchors = delay_map.reanchors
        delay_s = delay_map.update(presentation_s, arrival_s) - presentation_s
        if delay_map.reanchors > reanchors:
            self._delays_s.clear()  # the other modality's clock jumps too, but its data may not have arrived yet
        self._delays_s[modality] = delay_s
        best_s = min(self._delays_s.values())
        if self._offset_s is None or abs(best_s - self._offset_s) > OFFSET_HELD_S:
            self._offset_s = best_s
        return self._offset_s


class PlayedClock:
    """Capture times of a finite recording behind a URL: it is played from the moment it was opened."""

    def __init__(self, epoch_s: float) -> None:
        self.epoch_s = epoch_s

    def update(self, modality: Modality, presentation_s: float, arrival_s: float) -> float:
        """The offset, which nothing that arrives can change."""
        return self.epoch_s


class NetworkStream:
    """Reads a URL in a thread, sends what it gives, and opens it anew whenever it fails or ends.

    A live stream is read as it comes. A recording is played in real time and has an end.

    Args:
        link: ready, with `clock="host"`.
        url: anything that FFmpeg opens.
        lost_after_s: a stream of which nothing has come for so long is lost.
    """

    def __init__(self, link: CaptureLink, url: str, lost_after_s: float) -> None:
        self._link = link
        self._url = url
        self._name = hide_secrets(url)
        self._lost_after_s = lost_after_s
        self._changed = threading.Lock()
        self._status = {modality: DeviceStatus(state="opening") for modality in MODALITIES}
        self._heard_s = dict.fromkeys(MODALITIES, 0.0)
        self._opened = 0
        self._played_from_s: float | None = None  # epoch of a recording
        self._reader: MediaReader | None = None
        self._pending: deque[float] = deque()  # capture times of the frames that are to come
        self._foreseen = GridPicker(link.step_s)
        self._clock: SharedClock | PlayedClock = SharedClock()
        self._closing = threading.Event()
        self._backoff = Backoff()
        self._failure: Exception | None = None
        self.finished = threading.Event()
        self._thread = threading.Thread(target=self._guarded_run, name="network", daemon=True)

    def __enter__(self) -> "NetworkStream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout_s: float = READ_TIMEOUT_S + OPEN_TIMEOUT_S) -> bool:
        """Close the connection; false if the network call under way did not return in time."""
        self._closing.set()
        with self._changed:
            if self._reader is not None:
                self._reader.interrupt()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self, modality: Modality) -> DeviceStatus:
        """What a modality is doing; true to the deadline even while the network call blocks.

        Raises:
            Exception: what ended the reader thread, if that was no loss of the stream.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            status, silent_s = self._status[modality], time.perf_counter() - self._heard_s[modality]
        if status.state == "live" and silent_s > self._lost_after_s:
            detail = f"{self._name}: no {modality} for {self._lost_after_s:g} s"
            return DeviceStatus(state="lost", detail=detail, restarts=status.restarts)
        return status

    # The reader thread

    def _guarded_run(self) -> None:
        try:
            self._run()
        except Exception as error:
            # Raised again in `status`: only another process may do better.
            with self._changed:
                self._failure = error

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self._open() as reader:
                    finite = _is_recording(reader)
                    self._begin(reader, finite)
                    for event in reader:
                        self._take(event, finite)
                    if finite and not reader.interrupted:
                        self.finished.set()
                        return
                problem = f"{self._name}: the stream ended"
            except MediaError as error:
                problem = str(error)
            finally:
                with self._changed:
                    self._reader = None
            self._retry(problem)

    def _open(self) -> MediaReader:
        start_s = 0.0
        if self._played_from_s is not None:
            start_s = max(0.0, time.perf_counter() - self._played_from_s)
        reader = MediaReader(
            self._url,
            start_s=start_s,
            want=self._want,
            chunk_s=CHUNK_S,
            reorder_s=REORDER_S,
            open_timeout_s=OPEN_TIMEOUT_S,
            read_timeout_s=READ_TIMEOUT_S,
        )
        with self._changed:
            self._reader = reader
            if self._closing.is_set():
                reader.interrupt()
        return reader

    def _begin(self, reader: MediaReader, finite: bool) -> None:
        self._opened += 1
        self._pending.clear()
        self._clock = SharedClock()
        if finite:
            if self._played_from_s is None:
                self._played_from_s = time.perf_counter()
            self._clock = PlayedClock(self._played_from_s)
        present = {"video": reader.info.video, "audio": reader.info.audio}
        with self._changed:
            for modality in MODALITIES:
                info = present[modality]
                if info is None or not info.decodable:
                    detail = f"{self._name}: has no {modality} that can be decoded"
                    self._status[modality] = DeviceStatus(
                        state="lost", detail=detail, restarts=self._opened - 1
                    )

    def _want(self, media_s: float) -> bool:
        """Asked for each frame as it is decoded: that is when it has arrived."""
        offset_s = self._clock.update("video", media_s, time.perf_counter())
        self._hear("video")
        capture_s = media_s + offset_s
        # Not the link's picker, which is told when the frame comes.
        wanted, _ = self._foreseen.wanted(capture_s)
        if wanted:
            self._pending.append(capture_s)
        return wanted

    def _take(self, event: TimedFrame | PcmChunk, finite: bool) -> None:
        if isinstance(event, PcmChunk):
            offset_s = self._clock.update("audio", event.end_s, time.perf_counter())
            self._hear("audio")
            if finite:
                self._wait_until(event.end_s + offset_s)
            self._link.send_pcm(
                start_s=event.start_s + offset_s, pcm=event.pcm, gap_samples=event.gap_samples
            )
            return
        capture_s = self._pending.popleft()
        if finite:
            self._wait_until(capture_s)
        self._link.send_frame(time_s=capture_s, rgb=event.rgb)

    def _hear(self, modality: Modality) -> None:
        with self._changed:
            self._heard_s[modality] = time.perf_counter()
            if self._status[modality].state != "live":
                self._status[modality] = DeviceStatus(state="live", restarts=self._opened - 1)
        self._backoff.reset()

    def _wait_until(self, due_s: float) -> None:
        ahead_s = due_s - time.perf_counter()
        if ahead_s > 0:
            self._closing.wait(ahead_s)

    def _retry(self, problem: str) -> None:
        pause_s = self._backoff.next_s()
        with self._changed:
            for modality in MODALITIES:
                status = self._status[modality]
                self._status[modality] = status.failed(problem, max(0, self._opened - 1))
        self._closing.wait(pause_s)


def capture_network(link: CaptureLink, url: str, lost_after_s: float) -> None:
    """Send a network stream and its state through `link` until that is stopped, or the recording is over."""
    reported: dict[Modality, DeviceStatus] = {}
    stream_of_url = NetworkStream(link, url, lost_after_s)
    with stream_of_url:
        while not link.wait_stopped(POLL_S):
            for modality in MODALITIES:
                status = stream_of_url.status(modality)
                if status != reported.get(modality):
                    link.send_state(modality, status.state, status.detail, restarts=status.restarts)
                    reported[modality] = status
            if stream_of_url.finished.is_set():
                link.send_end()
                link.wait_stopped()
        if not stream_of_url.close(STOP_WITHIN_S):
            link.close()
            leave(EXIT_OK)


def _is_recording(reader: MediaReader) -> bool:
    """Whether a URL is that of a finite recording, which the network delivers faster than it plays."""
    rtsp = reader.info.format in ("rtsp", "sdp", "rtp")  # paced by its server even if finite
    return reader.info.duration_s is not None and not rtsp
