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
from emostream.urls import is_url
from stream.capture.network import LATENESS_S, LOST_AFTER_S, capture_network
from stream.capture.process import EXIT_USER_ERROR, capture_parser, run_capture
from stream.transport.protocol import Modality
from stream.transport.sender import CaptureLink

CHUNK_S = 0.02  # in real time; a sample waits for its chunk
CHUNK_MAX_S = 0.1  # at full speed
LAG_REPORTED_S = 1.0


class FilePlayer:
    """Reads a file as a device would deliver it, or as fast as inference takes it.

    Real time: what is captured at media time t is sent at `epoch + t`, by an absolute schedule that no delay shifts.
    The epoch is told to the inference process, so that a successor of this process goes on with the schedule. At full
    speed a successor goes on where everything before has been received.

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
            self._times_s = short_clip_times(self._location, link.num_frames, below_s)
        if self._loop:
            start_s, self._offset_s = 0.0, _whole_samples(start_s)
        while not link.stopped:
            with self._open(start_s) as reader:
                length_s = self._play(reader)
            if not self._loop or link.stopped:
                break
            if length_s <= 0.0:
                raise MediaError(
                    f"{self._location}: nothing in it can be decoded, let alone in a loop"
                )
            start_s, self._offset_s = 0.0, self._offset_s + length_s
        link.send_end()
        link.wait_stopped()  # said by the inference process when it has received all

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
        )

    def _play(self, reader: MediaReader) -> float:
        """Send what a reader gives; returns where it ended, media time of the file in whole samples."""
        if self._realtime and self._epoch_s is None:
            self._epoch_s = time.perf_counter()
            self._link.send_epoch(self._epoch_s)
        for modality in self._modalities:
            self._link.send_state(modality, "live")
        if reader.stats.problems:  # of opening: which of several sound tracks is heard
            self._link.send_state(self._modalities[0], "live", "; ".join(reader.stats.problems))
        end_s = 0.0
        frame_s = 1 / ((reader.info.video and reader.info.video.fps) or 25.0)
        for event in reader:
            # A microphone, too, delivers a chunk when its last sample is there.
            due_s = event.end_s if isinstance(event, PcmChunk) else event.time_s
            end_s = max(end_s, due_s if isinstance(event, PcmChunk) else due_s + frame_s)
            if self._realtime:
                self._wait_until(due_s)
            if self._link.stopped:
                return 0.0
            self._send(event)
        if reader.stats.problems:
            self._link.send_state(self._modalities[0], "live", "; ".join(reader.stats.problems))
        return _whole_samples(end_s)

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
            self._link.send_state(self._modalities[0], "live", detail)


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
    if is_url(args.location):
        return run_capture(
            args,
            lambda link: capture_network(link, args.location, args.lost_after_s),
            modalities=("video", "audio"),
            lateness_s=LATENESS_S,
        )
    realtime = args.pace == "realtime"
    try:
        modalities = present_modalities(probe(args.location, args.audio_track))
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

    return run_capture(args, capture, modalities=modalities, clock="media", lossless=not realtime)


def _whole_samples(time_s: float) -> float:
    return round(time_s * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ


if __name__ == "__main__":
    sys.exit(main())
