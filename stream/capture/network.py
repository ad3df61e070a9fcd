"""Network cameras and modalities through FFmpeg: times on our clock, losses noticed, connections renewed."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from emostream.errors import DeviceError, MediaError
from emostream.media import MediaReader, PcmChunk, TimedFrame
from emostream.urls import hide_secrets
from stream.capture.device import CLOSE_WITHIN_S, CaptureDevice, run_device
from stream.capture.picture import CameraFrame, StillPicture
from stream.capture.web import open_multipart
from stream.transport.clocks import MinimumDelayMap
from stream.transport.grid_picker import GridPicker
from stream.transport.protocol import Modality
from stream.transport.sender import CaptureLink

LOST_AFTER_S = 2.0
READ_TIMEOUT_S = 5.0
OPEN_TIMEOUT_S = 10.0
CHUNK_S = 0.02
QUEUED = 200  # chunks of sound, and pictures between them
REORDER_S = 0.05  # the windower puts things in order; what waits here is late there
LATENESS_S = 0.5  # senders group packets, sound above all, and networks hold them up
OFFSET_HELD_S = 0.01  # a smaller correction of the clock is not worth tearing the sound
# Frames are looked at for a second to learn their rate; they come late, all at once, and nobody asks for the rate.
NO_FRAME_RATE = {"fpsprobesize": "0"}
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


class IsRecording(DeviceError):
    """A URL gives a finite recording, which is to be played, and not a live stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """How to use one network camera or stream.

    Attributes:
        url: anything that FFmpeg opens, motion JPEG as simple cameras send it, or the address of single pictures.
        modalities: what to take of it.
        lost_after_s: a modality of which nothing has come for so long is lost.
        frozen_after_s: a picture that repeats to the last bit for so long is frozen; 0 accepts stills.
        step_s: how often a single picture is asked for.
    """

    url: str
    modalities: tuple[Modality, ...] = MODALITIES
    lost_after_s: float = LOST_AFTER_S
    frozen_after_s: float = 0.0
    step_s: float = 0.5


class NetworkStream(CaptureDevice[CameraFrame | PcmChunk]):
    """Reads a URL as it comes, and opens it anew whenever it fails or ends.

    An address that gives one picture a request is asked for the next one in the middle of each step.

    Args:
        config: which URL, and when it counts as lost.
        wanted: called with the capture time of every frame in order; only frames for which it is true are converted
            and yielded. All are, without it.
    """

    def __init__(
        self, config: NetworkConfig, *, wanted: Callable[[float], bool] | None = None
    ) -> None:
        super().__init__(
            name=hide_secrets(config.url),
            modalities=config.modalities,
            lost_after_s=config.lost_after_s,
            queued=QUEUED,
        )
        self.config = config
        self._wanted = wanted
        self._still = StillPicture(config.frozen_after_s)
        self._reader: MediaReader | None = None
        self._clock = SharedClock()
        self._single = False  # pictures, one a request
        self._pending: deque[float] = deque()  # capture times of the frames that are to come
        self._last_s = -math.inf

    def _problem(self, modality: Modality) -> str:
        if modality == "video" and self._still.frozen:
            return f"{self._name}: {self._still.problem}"
        return super()._problem(modality)

    def close(self, timeout_s: float = CLOSE_WITHIN_S) -> bool:
        """Close the connection; false if the network call under way did not return in time."""
        self._closing.set()
        with self._changed:
            if self._reader is not None:
                self._reader.interrupt()
        return super().close(timeout_s)

    # The reader thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                problem = self._watch()
            except MediaError as error:
                problem = str(error)
            if not self._closing.is_set():
                self._retry(problem)

    def _watch(self) -> str:
        """Read until the stream is lost, frozen or closed; returns what is wrong with it."""
        asked = False
        while not self._closing.is_set():
            with self._open() as reader:
                if not asked:
                    self._begin(reader)
                end = "the stream ended"
                try:
                    for event in reader:
                        self._take(event)
                        if self._still.frozen and self._silent_s("video") > self._lost_after_s:
                            return self._problem("video")
                except MediaError as error:
                    end = str(error).removeprefix(f"{self._name}: ")
            asked = self._single
            if not asked:
                return f"{self._name}: no {self._noun}: {end}"
            step_s = self.config.step_s
            self._closing.wait(step_s - (time.perf_counter() + step_s / 2) % step_s)
        return "closed"

    def _open(self) -> MediaReader:
        with self._driver:
            reader = self._connect()
        with self._changed:
            self._reader = reader
            if self._closing.is_set():
                reader.interrupt()
        return reader

    def _connect(self) -> MediaReader:
        url = self.config.url
        connection = None
        while True:
            try:
                return MediaReader(
                    url,
                    need=self.modalities,
                    want=self._want,
                    chunk_s=CHUNK_S,
                    reorder_s=REORDER_S,
                    open_timeout_s=OPEN_TIMEOUT_S,
                    read_timeout_s=READ_TIMEOUT_S,
                    options=NO_FRAME_RATE,
                    connection=connection,
                )
            except MediaError:
                if connection is not None:
                    connection.close()
                    raise
                if not url.lower().startswith(("http://", "https://")):
                    raise
            connection = open_multipart(url, READ_TIMEOUT_S)

    def _begin(self, reader: MediaReader) -> None:
        if reader.info.recorded:
            raise IsRecording(
                f"{self._name}: gives a recording, which has an end; play it with --source"
            )
        self._opened += 1
        self._hear()
        self._pending.clear()
        self._clock = SharedClock()
        self._single = reader.info.is_picture
        present = {"video": reader.info.video, "audio": reader.info.audio}
        for modality in self.modalities:
            info = present[modality]
            if info is None or not info.decodable:
                detail = f"{self._name}: has no {modality} that can be decoded"
                self._set_status(modality, "lost", detail)

    def _want(self, media_s: float) -> bool:
        """Asked for each frame as it is decoded: that is when it has arrived."""
        capture_s = time.perf_counter()
        if not self._single:
            capture_s = media_s + self._clock.update("video", media_s, capture_s)
        capture_s = self._last_s = max(capture_s, self._last_s + 1e-6)
        if not self._still.frozen:
            self._hear("video")
        wanted = self._wanted is None or self._wanted(capture_s)
        if wanted:
            self._pending.append(capture_s)
        return wanted

    def _take(self, event: TimedFrame | PcmChunk) -> None:
        if isinstance(event, PcmChunk):
            offset_s = self._clock.update("audio", event.end_s, time.perf_counter())
            self._hear("audio")
            self._backoff.reset()
            self._publish("audio", [replace(event, start_s=event.start_s + offset_s)])
            return
        capture_s = self._pending.popleft()
        if not self._still.add(event.rgb, capture_s):
            self._hear("video")
            self._backoff.reset()
            self._publish("video", [CameraFrame(time_s=capture_s, rgb=event.rgb)])


def capture_network(link: CaptureLink, config: NetworkConfig) -> None:
    """Send a network stream and its state through `link` until that is stopped.

    Raises:
        IsRecording: it is none.
    """
    # Not the link's picker, which is told when the frame comes.
    foreseen = GridPicker(link.step_s)
    stream = NetworkStream(
        replace(config, step_s=link.step_s), wanted=lambda time_s: foreseen.wanted(time_s)[0]
    )

    def send_next(timeout_ms: float) -> None:
        item = stream.read(timeout_ms)
        if isinstance(item, CameraFrame):
            link.send_frame(time_s=item.time_s, rgb=item.rgb)
        else:
            link.send_pcm(start_s=item.start_s, pcm=item.pcm, gap_samples=item.gap_samples)

    run_device(link, stream, send_next)
