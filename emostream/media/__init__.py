"""Media decoding: whatever FFmpeg reads, as upright RGB frames and 16 kHz mono PCM on one clock.

`MediaReader` reads both streams of a file or URL in one pass and is what live capture of them uses. `probe`,
`iter_frames`, `iter_pcm` and `read_audio` read files by time range; `load_clip` gives what offline inference and
training use. All times are seconds of the media clock that `MediaInfo` defines.
"""

from emostream.media.clip import Clip, load_clip, short_clip_times
from emostream.media.files import AudioRange, iter_frames, iter_pcm, probe, read_audio
from emostream.media.frames import TimedFrame
from emostream.media.info import AudioInfo, MediaInfo, MediaStats, Modality, VideoInfo
from emostream.media.pcm import SAMPLE_RATE_HZ, PcmChunk
from emostream.media.reader import MediaReader

__all__ = [
    "SAMPLE_RATE_HZ",
    "AudioInfo",
    "AudioRange",
    "Clip",
    "MediaInfo",
    "MediaReader",
    "MediaStats",
    "Modality",
    "PcmChunk",
    "TimedFrame",
    "VideoInfo",
    "iter_frames",
    "iter_pcm",
    "load_clip",
    "probe",
    "read_audio",
    "short_clip_times",
]
