"""Captures a file or URL, both modalities in one process: `python -P -m stream.capture.file`."""

import sys
import time
from collections.abc import Sequence

from emostream.errors import EmostreamError, MediaError
from emostream.media import (
    SAMPLE_RATE_HZ,
    MediaInfo,
    MediaReader,
    PcmChunk,
    TimedFrame,
    probe,
    short_clip_times,
)
from emostream.media.container import open_container
from emostream.media.streams import describe
from emostream.urls import is_url
from stream.capture.device import Backoff, leave
from stream.capture.network import (
    LATENESS_S,
    LOST_AFTER_S,
    OPEN_TIMEOUT_S,
    IsRecording,
    NetworkConfig,
    capture_network,
)
from stream.capture.process import EXIT_RETRY, EXIT_USER_ERROR, capture_parser, run_capture
from stream.transport.protocol import CaptureState, Modality
from stream.transport.sender import CaptureLink

CHUNK_S = 0.02  # in real time; a sample waits for its chunk
CHUNK_MAX_S = 0.1  # at full speed
LAG_REPORTED_S = 1.0
PATIENCE_S = (
    1.0  # a device's data may never come; a file's does, as soon as a busy machine has read it
)
REORDER_S = 60.0  # waiting for the other modality costs nothing
INDEX_AT_END = (
    "if its index is at its end, as in an MP4 of a camera or a phone, its server has to answer requests for ranges: "
    "download it, or move the index with `ffmpeg -i IN -c copy -movflags +faststart OUT.mp4`"
)


class FilePlayer:
    """Reads a file as a device would deliver it, or as fast as inference takes it.

    Real time: what is captured at media time t is sent at `epoch + t`, by an absolute schedule that no delay shifts.
    The epoch is told to the inference process, so that a successor of this process goes on with the schedule. At full
    speed a successor goes on where everything before has been received. A recording behind a URL is read likewise;
    when its server fails, it is asked again, and the recording goes on as a successor would go on with it.

    Args:
        link: ready, with `clock="media"`.
        location: file name.
        modalities: what the file has.
        realtime: pace by the clock; else the credit of a lossless link paces.
        loop: begin again at the end, with times that go on.
        audio_track: which of several sound tracks, from 1; None takes the best one with sound in it.
    """

    def __init__(
        self,
        link: CaptureLink,
        location: str,
        modalities: Sequence[Modality],
        *,
        realtime: bool,
        loop: bool,
        audio_track: int | None = None,
    ) -> None:
        self._link = link
        self._location = location
        self._modalities = modalities
        self._realtime = realtime
        self._loop = loop
        self._audio_track = audio_track
        self._epoch_s = link.epoch_s  # on `perf_counter`; None until the first pass begins
        self._offset_s = 0.0  # of this pass over the file, a whole number of samples
        self._lagging = False
        self._times_s: list[float] | None = (
            None  # of the frames to send of a file shorter than a window
        )
        self._backoff = Backoff()
        self._reopened = 0  # times
        self._sent_any = False
        self._sent_s: dict[Modality, float] = {}  # up to where, media time of this pass
        self._end_s = 0.0  # of what was sent of this pass

    def run(self) -> None:
        """Play to the end, once the inference process is ready; returns early when the link is stopped.

        Raises:
            MediaError: the file cannot be read, or has nothing in it.
        """
        link = self._link
        if not link.wait_started():
            return
        start_s = self._resume_s()
        if link.num_frames and not self._loop and "video" in self._modalities:
            below_s = (link.num_frames - 0.5) * link.step_s
            try:
                self._times_s = short_clip_times(self._location, link.num_frames, below_s)
            except MediaError:
                if not is_url(self._location):
                    raise  # a server's failure is met again when it is read
        if self._loop:
            start_s, self._offset_s = 0.0, _whole_samples(start_s)
        while not link.stopped:
            reading = False
            try:
                with self._open(start_s) as reader:
                    reading = True
                    self._play(reader)
            except MediaError as error:
                if not is_url(self._location):
                    raise
                if reading and not self._sent_any:
                    raise MediaError(f"{error}; {INDEX_AT_END}") from error
                start_s = self._ask_again(str(error))
                continue
            if link.stopped:
                break
            if not self._end_s and not start_s:  # not what another process left of it
                raise MediaError(f"{self._location}: nothing in it can be decoded")
            if not self._loop:
                break
            length_s = _whole_samples(self._end_s)
            start_s, self._offset_s = 0.0, self._offset_s + length_s
            self._end_s = 0.0
            self._sent_s.clear()
        link.send_end()
        link.wait_stopped()  # said by the inference process when it has received all

    def _ask_again(self, problem: str) -> float:
        """Report that a server failed, and wait; returns the media time of this pass to go on at."""
        self._reopened += 1
        for modality in self._modalities:
            # At full speed it is waited for, as windows wait for nothing that is lost.
            state: CaptureState = "lost" if self._realtime else "live"
            self._report(modality, state, problem)
        self._link.wait_stopped(self._backoff.next_s())
        if self._realtime:
            return max(0.0, self._resume_s() - self._offset_s)
        return min(self._sent_s.get(modality, 0.0) for modality in self._modalities)

    def _report(self, modality: Modality, state: CaptureState, detail: str = "") -> None:
        self._link.send_state(modality, state, detail, restarts=self._reopened)

    def _resume_s(self) -> float:
        """Media time to begin at: 0, unless another process played the file before us."""
        if not self._realtime:
            return self._link.resume_s
        return 0.0 if self._epoch_s is None else max(0.0, time.perf_counter() - self._epoch_s)

    def _open(self, start_s: float) -> MediaReader:
        return MediaReader(
            self._location,
            start_s=start_s,
            audio_track=self._audio_track,
            # In a loop a grid cell may span two passes; its newest frame is not known in the first.
            grid_step_s=None if self._loop or self._times_s else self._link.step_s,
            want=self._times_s.__contains__ if self._times_s else None,
            chunk_s=CHUNK_S if self._realtime else CHUNK_MAX_S,
            reorder_s=REORDER_S,
        )

    def _play(self, reader: MediaReader) -> None:
        """Send what a reader gives."""
        if self._realtime and self._epoch_s is None:
            self._epoch_s = time.perf_counter()
            self._link.send_epoch(self._epoch_s)
        for modality in self._modalities:
            self._report(modality, "live")
        if reader.stats.problems:  # of opening: which of several sound tracks is heard
            self._report(self._modalities[0], "live", "; ".join(reader.stats.problems))
        frame_s = 1 / ((reader.info.video and reader.info.video.fps) or 25.0)
        for event in reader:
            # A microphone, too, delivers a chunk when its last sample is there.
            due_s = event.end_s if isinstance(event, PcmChunk) else event.time_s
            shown_s = 0.0 if isinstance(event, PcmChunk) else frame_s
            self._end_s = max(self._end_s, due_s + shown_s)
            if self._realtime:
                self._wait_until(due_s)
            if self._link.stopped:
                return
            self._send(event)
            kind: Modality = "audio" if isinstance(event, PcmChunk) else "video"
            if due_s > self._sent_s.get(kind, -1.0):
                self._backoff.reset()
                self._sent_s[kind] = due_s
                self._sent_any = True
        if reader.stats.problems:
            self._report(self._modalities[0], "live", "; ".join(reader.stats.problems))

    def _send(self, event: TimedFrame | PcmChunk) -> None:
        if isinstance(event, PcmChunk):
            start_s = self._offset_s + event.start_s
            self._link.send_pcm(start_s=start_s, pcm=event.pcm, gap_samples=event.gap_samples)
        elif self._loop:
            self._link.send_frame(time_s=self._offset_s + event.time_s, rgb=event.rgb)
        else:
            self._link.send_grid_frame(time_s=event.time_s, rgb=event.rgb)

    def _wait_until(self, time_s: float) -> None:
        """Wait for a media time of this pass; say so when decoding falls behind it, and when it has caught up."""
        assert self._epoch_s is not None
        ahead_s = self._epoch_s + self._offset_s + time_s - time.perf_counter()
        if ahead_s > 0:
            self._link.wait_stopped(ahead_s)
        lagging = -ahead_s > (LAG_REPORTED_S / 2 if self._lagging else LAG_REPORTED_S)
        if lagging != self._lagging:
            self._lagging = lagging
            detail = "decoding is slower than real time; use a smaller picture" if lagging else ""
            self._report(self._modalities[0], "live", detail)


def present_modalities(info: MediaInfo) -> tuple[Modality, ...]:
    """The modalities that there are and that can be decoded.

    Raises:
        MediaError: there is none.
    """
    modalities: list[Modality] = []
    if info.video is not None and info.video.decodable:
        modalities.append("video")
    if info.audio is not None and info.audio.decodable:
        modalities.append("audio")
    if not modalities:
        raise MediaError(f"{info.path}: neither video nor audio in it can be decoded")
    return tuple(modalities)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the capture process."""
    parser = capture_parser("stream.capture.file", "captures a file or URL")
    parser.add_argument("--location", required=True, help="file name or URL")
    parser.add_argument("--pace", choices=("realtime", "max"), default="realtime")
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--audio-track", type=int, help="of files with several, from 1")
    parser.add_argument("--lost-after-s", type=float, default=LOST_AFTER_S, help="of URLs")
    args = parser.parse_args(argv)
    realtime = args.pace == "realtime"
    try:
        info = (
            _recording(args.location, args.audio_track)
            if is_url(args.location)
            else probe(args.location, args.audio_track)
        )
        if info is None:
            return run_capture(
                args,
                lambda link: _capture_live(link, args.location, args.lost_after_s),
                modalities=("video", "audio"),
                lateness_s=LATENESS_S,
            )
        modalities = present_modalities(info)
    except EmostreamError as error:
        print(error, file=sys.stderr)  # noqa: T201  the parent reads it
        return EXIT_USER_ERROR

    def capture(link: CaptureLink) -> None:
        FilePlayer(
            link,
            args.location,
            modalities,
            realtime=realtime,
            loop=args.loop,
            audio_track=args.audio_track,
        ).run()

    return run_capture(
        args,
        capture,
        modalities=modalities,
        clock="media",
        lossless=not realtime,
        lateness_s=PATIENCE_S,
    )


def _recording(url: str, audio_track: int | None) -> MediaInfo | None:
    """What a URL gives if it is a recording with an end; None of a live stream, and while it does not answer."""
    if not url.lower().startswith(("http://", "https://", "ftp://")):
        return None  # paced by its server
    try:
        with open_container(url, OPEN_TIMEOUT_S, OPEN_TIMEOUT_S) as container:
            info = describe(container, url, audio_track)
    except MediaError:
        return None
    return info if info.recorded else None


def _capture_live(link: CaptureLink, url: str, lost_after_s: float) -> None:
    try:
        capture_network(link, NetworkConfig(url=url, lost_after_s=lost_after_s))
    except IsRecording:
        link.close()
        leave(EXIT_RETRY)  # it did not answer at first; another process plays it from its beginning


def _whole_samples(time_s: float) -> float:
    return round(time_s * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ


if __name__ == "__main__":
    sys.exit(main())
