"""Browsers' own cameras and microphones, by WebRTC: each visitor is one more source while the page is open.

RTP times are mapped to the clock as those of any network stream are, by their minimum delay, each track by itself, as
their origins differ. What that leaves between picture and sound is the difference of two network delays.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from emostream.errors import EmostreamError
from stream.capture.network import LATENESS_S, SharedClock
from stream.transport.protocol import PCM_RATE_HZ, IngestAddress, Modality
from stream.transport.sender import CaptureLink

MAX_VISITORS = 4
READY_WITHIN_S = 10.0
#: So long without a frame or a sound: the browser has gone, whatever its connection says.
SILENT_S = 20.0
CLOSED_WITHIN_S = 5.0


class VisitorRefused(EmostreamError):
    """A browser's camera cannot be taken: too many are, or its offer cannot be used."""


class Visitors:
    """Everybody whose browser sends picture and sound.

    Args:
        address: Where capture connects to the inference process.
        most: How many at once.
    """

    def __init__(self, address: IngestAddress, most: int) -> None:
        self._address = address
        self._most = most
        self._numbers = itertools.count(1)
        self._here: dict[str, Visitor] = {}

    @property
    def room(self) -> int:
        """How many more may come."""
        return self._most - len(self._here)

    async def welcome(self, sdp: str) -> tuple[str, str]:
        """Take a browser's offer; returns the answer's SDP and the name of the source.

        Raises:
            VisitorRefused: There is no room, or the offer cannot be used.
        """
        if self.room <= 0:
            raise VisitorRefused(
                f"{self._most} cameras are in use, which is the limit; try again later"
            )
        source = f"visitor-{next(self._numbers)}"
        visitor = Visitor(self._address, source, lambda: self._here.pop(source, None))
        self._here[source] = visitor
        try:
            return await visitor.answer(sdp), source
        except BaseException:
            await visitor.leave()
            raise

    async def close(self) -> None:
        """Send everybody away."""
        await asyncio.gather(*(visitor.leave() for visitor in list(self._here.values())))


class Visitor:
    """One browser: its connection, and the link by which its picture and sound reach the pipeline."""

    def __init__(self, address: IngestAddress, source: str, on_left: Callable[[], object]) -> None:
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._link = CaptureLink(
            address, source=source, modalities=("video", "audio"), lateness_s=LATENESS_S
        )
        self._on_left = on_left
        self._tasks: list[asyncio.Task[None]] = []
        self._live: set[Modality] = set()
        self._heard_s = time.monotonic()
        self._watch: asyncio.Task[None] | None = None
        self._left = False

    async def answer(self, sdp: str) -> str:
        """Connect to the pipeline and to the browser; returns the answer's SDP.

        Raises:
            VisitorRefused: The offer cannot be used.
            LinkError: The inference process does not answer.
        """
        self._link.__enter__()
        await asyncio.to_thread(self._link.wait_ready, READY_WITHIN_S)
        self._peer.on("track", self._take)
        self._peer.on("connectionstatechange", self._note_connection)
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
            answer = await self._peer.createAnswer()
            await self._peer.setLocalDescription(answer)
        except (ValueError, KeyError, IndexError, AttributeError, AssertionError) as error:
            # What aiortc raises for text that is no session description.
            raise VisitorRefused(f"the browser's offer cannot be used: {error!r:.200}") from error
        if not self._tasks:
            raise VisitorRefused("the browser's offer has neither a camera nor a microphone")
        self._heard_s = time.monotonic()
        self._watch = asyncio.create_task(self._leave_when_silent())
        return str(self._peer.localDescription.sdp)

    async def leave(self) -> None:
        """End the source and the connection; may be called again."""
        if self._left:
            return
        self._left = True
        self._on_left()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._link.send_end()
        await asyncio.to_thread(self._link.close)
        # Last: the source must not wait for what a lost browser's connection may wait for.
        await asyncio.wait([asyncio.create_task(self._peer.close())], timeout=CLOSED_WITHIN_S)

    async def _leave_when_silent(self) -> None:
        while time.monotonic() - self._heard_s < SILENT_S:
            await asyncio.sleep(1.0)
        await self.leave()

    async def _note_connection(self) -> None:
        if self._peer.connectionState in ("closed", "failed"):
            await self.leave()

    def _take(self, track: MediaStreamTrack) -> None:
        take = {"video": self._take_video, "audio": self._take_audio}[track.kind]
        self._tasks.append(asyncio.create_task(take(track)))

    async def _take_video(self, track: MediaStreamTrack) -> None:
        clock = SharedClock()
        with contextlib.suppress(MediaStreamError):
            while not self._link.stopped:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                time_s = self._time_s(clock, "video", frame)
                if self._link.wanted(time_s):
                    self._link.send_frame(time_s=time_s, rgb=frame.to_ndarray(format="rgb24"))

    async def _take_audio(self, track: MediaStreamTrack) -> None:
        clock = SharedClock()
        resampler = av.AudioResampler(format="flt", layout="mono", rate=PCM_RATE_HZ)
        with contextlib.suppress(MediaStreamError):
            while not self._link.stopped:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                # A block has arrived once its last sample has.
                start_s = self._time_s(clock, "audio", frame, frame.samples / frame.sample_rate)
                for part in resampler.resample(frame):
                    pcm = part.to_ndarray()[0]
                    self._link.send_pcm(start_s=start_s, pcm=pcm)
                    start_s += len(pcm) / PCM_RATE_HZ

    def _time_s(
        self,
        clock: SharedClock,
        modality: Modality,
        frame: av.VideoFrame | av.AudioFrame,
        length_s: float = 0.0,
    ) -> float:
        """Capture time of a frame's beginning; the first of a modality says that it is live."""
        self._heard_s = time.monotonic()
        if modality not in self._live:
            self._live.add(modality)
            self._link.send_state(modality, "live")
        assert frame.pts is not None
        assert frame.time_base is not None
        media_s = float(frame.pts * frame.time_base)
        return media_s + clock.update(modality, media_s + length_s, time.perf_counter())
