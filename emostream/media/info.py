"""What is known of a file or URL before decoding it, and what decoding it met."""

from dataclasses import dataclass, field
from typing import Literal

Modality = Literal["video", "audio"]
BOTH: frozenset[Modality] = frozenset(("video", "audio"))

#: A file that ends earlier than its header says by more than this is reported as cut short.
SHORT_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """A video stream.

    Attributes:
        width, height: Size in pixels as stored, before rotation.
        fps: Average frames per second, None if the container does not tell; frames may be spaced unevenly.
        codec: FFmpeg's name of the codec.
        rotation_deg: Counter-clockwise rotation that display needs, in [-180, 180]; None if no frame was decoded to
            learn it.
        start_s: Time of the first frame on the media clock, seconds.
        decodable: Whether this FFmpeg has a decoder.
    """

    width: int
    height: int
    fps: float | None
    codec: str
    rotation_deg: int | None
    start_s: float
    decodable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioInfo:
    """An audio stream.

    Attributes:
        sample_rate_hz: Rate as stored.
        channels: Channels as stored.
        codec: FFmpeg's name of the codec.
        start_s: Time of the first sample on the media clock, seconds; encoder priming is not counted.
        decodable: Whether this FFmpeg has a decoder.
        track: Which of the file's sound tracks it is, from 1.
        choice: Of how many and why, for people; empty if there is no other.
    """

    sample_rate_hz: int
    channels: int
    codec: str
    start_s: float
    decodable: bool
    track: int = 1
    choice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaInfo:
    """What the container says of itself.

    The media clock: time 0 is the earlier of the two stream starts (the first video frame's presentation time, the
    first audio sample after the priming that the container declares), and the time of anything in either stream is its
    presentation timestamp minus that. So a stream that starts late keeps its offset, and both share one clock,
    whichever of them is decoded.

    Attributes:
        path: File or URL as it was given.
        format: FFmpeg's name of the container.
        duration_s: End of the longer stream as the header says, seconds of the media clock; None if unknown.
        video: The best video stream; cover art does not count. None if there is none.
        audio: The sound track that was asked for, or the best one with sound in it; None if there is none.
        zero_s: The container's own timestamp of media time 0, seconds; None for a live stream that does not tell: its
            first packet is time 0.
        recorded: Whether it has an end: a file, or a URL that gives one, rather than a live stream.
    """

    path: str
    format: str
    duration_s: float | None
    video: VideoInfo | None
    audio: AudioInfo | None
    zero_s: float | None
    recorded: bool

    @property
    def is_picture(self) -> bool:
        """Whether it is a single picture."""
        return self.format == "image2" or self.format.endswith("_pipe")


@dataclass(slots=True)
class MediaStats:
    """What a reading met. Counts grow while reading and are complete when it ends.

    Attributes:
        frames: Video frames decoded within the range, whether converted to RGB or not.
        corrupt_frames: Of these, frames that the decoder patched up after an error.
        frames_replaced: Frames of a clip that did not decode and were replaced by a neighbour.
        out_of_order: Frames dropped because a later one had been delivered.
        guessed_times: Frames without a timestamp, placed by the frame rate.
        decode_errors: Packets, or stretches of data, of either stream that could not be read or decoded.
        gap_samples: 16 kHz samples of missing audio replaced by zeros.
        overlap_samples: 16 kHz samples dropped because their time had been delivered.
        splices: Jumps of the source's clock that were closed up.
        short_by_s: How much earlier than its header says the file ended; 0 if it did not.
        problems: One line for each kind of trouble, for people.
    """

    frames: int = 0
    corrupt_frames: int = 0
    frames_replaced: int = 0
    out_of_order: int = 0
    guessed_times: int = 0
    decode_errors: int = 0
    gap_samples: int = 0
    overlap_samples: int = 0
    splices: int = 0
    short_by_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        """Add a line to `problems`, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def decode_error(self, problem: str) -> None:
        """Count a decode error and note its kind."""
        self.decode_errors += 1
        self.note(problem)

    def check_length(self, info: MediaInfo, reached_s: float) -> None:
        """Note a file whose data ended at `reached_s` if its header says that it goes on."""
        short_s = 0.0 if info.duration_s is None else info.duration_s - reached_s
        if short_s > SHORT_S:
            self.short_by_s = short_s
            self.note(
                f"ends {short_s:.1f} s before its header says: {reached_s:.1f} of {info.duration_s:.1f} s could be read"
            )
