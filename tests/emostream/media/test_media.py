"""Media decoding, tried on real files of many kinds. `test_media_damage.py` has the broken ones."""

import itertools
import os
import unicodedata
import wave
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from emostream.errors import MediaError
from emostream.media import (
    MediaReader,
    MediaStats,
    PcmChunk,
    TimedFrame,
    iter_frames,
    iter_pcm,
    load_clip,
    probe,
    read_audio,
)
from emostream.media.interleave import Interleaver
from emostream.media.reader import MAX_HELD
from emostream.sampling import grid_frames, segment_midpoint_indices
from tests.media_factory import (
    Audio,
    Video,
    corners,
    flash_and_beep,
    noise,
    read_number,
    tone,
    write_media,
)

VP9 = "libvpx-vp9"
#: suffix -> (video codec, audio codec, sample rate); what people's files are.
KINDS = {
    "mp4": ("libx264", "aac", 48_000),
    "mov": ("libx264", "pcm_s16le", 44_100),
    "mkv": ("libx264", "aac", 44_100),
    "webm": (VP9, "libopus", 48_000),
    "ts": ("libx264", "aac", 48_000),
    "avi": ("mpeg4", "pcm_s16le", 22_050),
    "flv": ("libx264", "aac", 44_100),
    "mpg": ("mpeg2video", "mp2", 48_000),
}


def write_kind(folder: Path, suffix: str, seconds: float = 2.0) -> Path:
    vcodec, acodec, rate_hz = KINDS[suffix]
    return write_media(
        folder / f"clip.{suffix}",
        Video(codec=vcodec, duration_s=seconds),
        Audio(
            codec=acodec,
            rate_hz=rate_hz,
            duration_s=seconds,
            sound=noise(),
            # Decoders fill in substituted noise at random, so that no two decodings would agree.
            options={"aac_pns": "0"} if acodec == "aac" else {},
        ),
    )


def numbers(frames: list[TimedFrame]) -> list[int]:
    return [read_number(frame.rgb) for frame in frames]


def read_all(path: Path, **options) -> SimpleNamespace:
    with MediaReader(path, **options) as reader:
        events = list(reader)
    return SimpleNamespace(
        events=events,
        frames=[event for event in events if isinstance(event, TimedFrame)],
        chunks=[event for event in events if isinstance(event, PcmChunk)],
        stats=reader.stats,
        info=reader.info,
    )


def start_of(event: TimedFrame | PcmChunk) -> float:
    return event.time_s if isinstance(event, TimedFrame) else event.start_s


def joined(chunks: list[PcmChunk]) -> NDArray[np.float32]:
    for before, after in itertools.pairwise(chunks):
        assert after.start_s == before.end_s
    return np.concatenate([chunk.pcm for chunk in chunks])


def onset_s(pcm: NDArray[np.float32]) -> float:
    """Where a beep begins: the first sample that is loud."""
    return int(np.argmax(np.abs(pcm) > 0.2)) / 16_000


# -- every kind of file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", KINDS)
def test_all_frames_and_samples_arrive_once_and_in_order(tmp_path: Path, suffix: str) -> None:
    path = write_kind(tmp_path, suffix)
    got = read_all(path)
    assert numbers(got.frames) == list(range(50))
    steps = np.diff([frame.time_s for frame in got.frames])
    assert steps == pytest.approx(np.full(49, 0.04), abs=1.1e-3)  # Matroska and FLV round to 1 ms
    assert got.frames[0].rgb.shape == (120, 160, 3)
    assert got.frames[0].rgb.dtype == np.uint8
    pcm = joined(got.chunks)
    assert pcm.dtype == np.float32
    assert len(pcm) == pytest.approx(32_000, abs=1800)  # codecs pad their last packets
    starts = [start_of(event) for event in got.events]
    assert starts == sorted(starts)
    assert got.stats.decode_errors == got.stats.out_of_order == got.stats.guessed_times == 0
    assert got.stats.gap_samples == got.stats.overlap_samples == 0
    assert got.stats.problems == []


@pytest.mark.parametrize("suffix", KINDS)
def test_a_flash_and_a_beep_stay_together(tmp_path: Path, suffix: str) -> None:
    vcodec, acodec, rate_hz = KINDS[suffix]
    path = flash_and_beep(
        tmp_path / f"clip.{suffix}",
        1.0,
        Video(codec=vcodec),
        Audio(codec=acodec, rate_hz=rate_hz),
    )
    got = read_all(path)
    bright = [frame.time_s for frame in got.frames if frame.rgb.mean() > 127]
    heard_s = got.chunks[0].start_s + onset_s(joined(got.chunks))
    assert len(bright) == pytest.approx(3, abs=1)
    assert heard_s == pytest.approx(bright[0], abs=0.005)


@pytest.mark.parametrize("suffix", KINDS)
def test_seeking_gives_what_reading_from_the_start_gives(tmp_path: Path, suffix: str) -> None:
    path = write_kind(tmp_path, suffix, seconds=8.0)
    frames, chunks = list(iter_frames(path)), list(iter_pcm(path))
    for start_s, end_s in ((5.03, 6.51), (3.5, 3.9), (7.2, None)):
        expected = [f for f in frames if f.time_s >= start_s and (not end_s or f.time_s < end_s)]
        part = list(iter_frames(path, start_s, end_s))
        assert [f.time_s for f in part] == pytest.approx([f.time_s for f in expected])
        for frame, other in zip(part, expected, strict=True):
            assert np.array_equal(frame.rgb, other.rgb)
        both = read_all(path, start_s=start_s, end_s=end_s)
        assert numbers(both.frames) == numbers(expected)
        for pcm_chunks in (list(iter_pcm(path, start_s, end_s)), both.chunks):
            pcm, whole = joined(pcm_chunks), joined(chunks)
            first = round(start_s * 16_000)
            assert pcm_chunks[0].start_s == first / 16_000
            if end_s:
                assert len(pcm) == round(end_s * 16_000) - first
            rounded = suffix in ("mkv", "webm", "flv")
            assert alignment(pcm, whole[first - round(chunks[0].start_s * 16_000) :]) <= (
                16 if rounded else 0
            )


def alignment(part: NDArray[np.float32], whole: NDArray[np.float32]) -> int:
    """By how many samples `part` is off the start of `whole`, both noise; they must then be nearly equal."""
    part, errors = part[: len(whole)], {}
    for shift in range(-20, 21):
        a, b = (part[shift:], whole) if shift >= 0 else (part, whole[-shift:])
        size = min(len(a), len(b))
        errors[shift] = float(np.sqrt(np.mean((a[:size] - b[:size]) ** 2)))
    best = min(errors, key=lambda shift: errors[shift])
    assert errors[best] < (0.06 if best else 0.02), errors[best]
    return abs(best)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_clip_has_the_published_frames_whatever_the_container(
    tmp_path: Path, suffix: str
) -> None:
    path = write_kind(tmp_path, suffix)
    clip = load_clip(path)
    assert clip.frames is not None
    assert clip.frames.shape == (8, 120, 160, 3)
    assert [read_number(rgb) for rgb in clip.frames] == segment_midpoint_indices(50, 8).tolist()
    assert clip.audio is not None
    assert np.array_equal(clip.audio[-16_000:], joined(list(iter_pcm(path)))[-16_000:])
    assert clip.missing == {}


# -- video -----------------------------------------------------------------------------------------------------------


def test_variable_frame_rates_keep_their_times(tmp_path: Path) -> None:
    times_s = [0, 0.03, 0.5, 0.51, 1.7, 2.0, 2.04, 5.0]
    for suffix in ("mp4", "mkv"):
        path = write_media(tmp_path / f"clip.{suffix}", Video(times_s=times_s))
        frames = list(iter_frames(path))
        assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=1e-3)
        assert numbers(frames) == list(range(8))
        part = list(iter_frames(path, 0.5, 2.0))
        assert numbers(part) == [2, 3, 4]


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, -90])
def test_frames_are_turned_upright(tmp_path: Path, rotation_deg: int, hflip: bool) -> None:
    path = write_media(
        tmp_path / "clip.mp4",
        Video(picture=corners, rotation_deg=rotation_deg, hflip=hflip, duration_s=0.2),
    )
    stored = corners(0, 0.0, (160, 120))
    expected = np.rot90(stored, rotation_deg // 90)
    expected = expected[:, ::-1] if hflip else expected
    clip = load_clip(path, num_frames=2)
    assert clip.frames is not None
    for rgb in (next(iter_frames(path)).rgb, clip.frames[0]):
        assert rgb.shape == expected.shape
        centres = np.array([expected.shape[0] // 4, 3 * expected.shape[0] // 4])
        middles = np.array([expected.shape[1] // 4, 3 * expected.shape[1] // 4])
        found = rgb[np.ix_(centres, middles)].astype(int)
        assert np.abs(found - expected[np.ix_(centres, middles)]).max() < 60
        assert rgb.flags.c_contiguous
    info = probe(path)
    assert info.video is not None
    assert (info.video.width, info.video.height) == (160, 120)
    if not hflip:
        assert info.video.rotation_deg in (rotation_deg, -180 if rotation_deg == 180 else None)


def test_b_frames_come_in_order_of_presentation(tmp_path: Path) -> None:
    """In MP4 with their times, in AVI and in a raw stream without."""
    for suffix in ("mp4", "avi", "h264"):
        path = write_media(tmp_path / f"clip.{suffix}", Video(options={"bf": "3", "b_adapt": "0"}))
        got = read_all(path)
        assert numbers(got.frames) == list(range(50))
        assert [frame.time_s for frame in got.frames] == pytest.approx(np.arange(50) * 0.04)
        assert got.stats.guessed_times == (50 if suffix == "h264" else 0)
        clip = load_clip(path)
        assert clip.frames is not None
        assert [read_number(rgb) for rgb in clip.frames] == segment_midpoint_indices(50, 8).tolist()


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12:min-keyint=12"}),
        ("libx265", {"x265-params": "open-gop=1:bframes=3:keyint=12:log-level=none:pools=1"}),
        ("mpeg2video", {"bf": "2"}),
    ],
)
@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_frames_that_refer_across_keyframes(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    """Open groups: frames stored after a keyframe and shown before it need the group before."""
    video = Video(codec=codec, duration_s=6, options=options)
    path = write_media(tmp_path / f"clip.{suffix}", video)
    frames = list(iter_frames(path))
    assert numbers(frames) == list(range(150))
    for start in (96, 103, 106, 107, 108, 109):
        part = list(iter_frames(path, frames[start].time_s, frames[start].time_s + 0.35))
        assert numbers(part)[:8] == list(range(start, start + 8))
        assert np.array_equal(part[0].rgb, frames[start].rgb)
    clip = load_clip(path, 75)
    assert clip.frames is not None
    chosen = segment_midpoint_indices(150, 75)
    for rgb, index in zip(clip.frames, chosen, strict=True):
        assert np.array_equal(rgb, frames[index].rgb)
    assert clip.stats.frames_replaced == 0


def test_frames_of_any_size_are_whole_arrays(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", Video(size=(98, 54), duration_s=0.2))
    rgb = next(iter_frames(path)).rgb
    assert rgb.shape == (54, 98, 3)
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable


def test_a_clip_has_one_size_where_the_file_changes_it(tmp_path: Path) -> None:
    parts = [
        write_media(tmp_path / f"{width}.ts", Video(size=(width, 120), start_s=start_s))
        for width, start_s in ((160, 0.0), (240, 2.0))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert {frame.rgb.shape for frame in iter_frames(path)} == {(120, 160, 3), (120, 240, 3)}
    clip = load_clip(path)
    assert clip.frames is not None
    assert clip.frames.shape == (8, 120, 160, 3)
    assert read_number(clip.frames[-1]) > 40


def test_a_raw_clip_has_one_size_where_it_changes(tmp_path: Path) -> None:
    """Without times in its packets its frames are counted by decoding, which is another way to them."""
    parts = [
        write_media(tmp_path / f"{width}.h264", Video(size=(width, 120), duration_s=1))
        for width in (160, 240)
    ]
    path = tmp_path / "joined.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = load_clip(path)
    assert clip.frames is not None
    assert clip.frames.shape == (8, 120, 160, 3)


@pytest.mark.parametrize("name", [b"b\xe4r.mkv", "b\u00e4r.mkv".encode(), b"x=y.mkv"])
def test_files_are_found_by_any_name(tmp_path: Path, name: bytes) -> None:
    path = write_media(tmp_path / "clip.mkv", Video(duration_s=0.2))
    path.rename(tmp_path / unicodedata.normalize("NFD", os.fsdecode(name)))
    link = tmp_path / "link.mkv"
    link.symlink_to(tmp_path / unicodedata.normalize("NFD", os.fsdecode(name)))
    for given in (tmp_path / os.fsdecode(name), link):
        assert len(list(iter_frames(given))) == 5


def test_only_wanted_frames_are_delivered(tmp_path: Path) -> None:
    path = write_kind(tmp_path, "mp4")
    asked: list[float] = []

    def want(time_s: float) -> bool:
        asked.append(time_s)
        return len(asked) % 10 == 1

    got = read_all(path, want=want)
    assert numbers(got.frames) == [0, 10, 20, 30, 40]
    assert asked == pytest.approx(np.arange(50) * 0.04)
    assert got.stats.frames == 50


@pytest.mark.parametrize("start_s", [0.0, 0.7])
def test_the_grid_takes_the_newest_frame_of_each_cell(tmp_path: Path, start_s: float) -> None:
    times_s = sorted(np.random.default_rng(3).uniform(0, 6, 40).round(3).tolist())
    path = write_media(tmp_path / "clip.mp4", Video(times_s=[0.0, *times_s]))
    frames = [frame for frame in iter_frames(path) if frame.time_s >= start_s]
    got = read_all(path, grid_step_s=0.5, start_s=start_s)
    chosen = grid_frames([frame.time_s for frame in frames], 0, 14, 0.5)
    own = sorted(set(chosen.indices[~chosen.repeated].tolist()))
    assert [frame.time_s for frame in got.frames] == [frames[i].time_s for i in own]
    assert numbers(got.frames) == [read_number(frames[i].rgb) for i in own]


def test_an_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    path = write_media(tmp_path / "face.jpg", Video(codec="mjpeg", duration_s=0.04))
    clip = load_clip(path)
    assert clip.frames is not None
    assert (clip.frames == clip.frames[:1]).all()
    assert clip.frames.shape == (8, 120, 160, 3)
    assert clip.frame_times_s.tolist() == [0.0] * 8
    assert clip.audio is None


def test_cover_art_is_not_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    write_media(path, None, Audio(codec="libmp3lame", rate_hz=44_100))
    picture = write_media(tmp_path / "cover.jpg", Video(codec="mjpeg", duration_s=0.04))
    path.write_bytes(id3_with_picture(picture.read_bytes()) + path.read_bytes())
    assert probe(path).video is None
    clip = load_clip(path)
    assert clip.frames is None
    assert clip.missing == {"video": f"{path}: has no video"}
    assert clip.audio is not None


def test_a_photo_with_exif_is_read(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x010F] = "a camera"
    PIL.Image.new("RGB", (64, 48), "red").save(tmp_path / "photo.jpg", exif=exif)
    with MediaReader(tmp_path / "photo.jpg") as reader:
        [frame] = list(reader)
    assert frame.rgb.shape == (48, 64, 3)


def id3_with_picture(jpeg: bytes) -> bytes:
    """An ID3v2.3 tag with a front cover."""

    def syncsafe(size: int) -> bytes:
        return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))

    body = b"\0image/jpeg\0\x03\0" + jpeg
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    return b"ID3\x03\0\0" + syncsafe(len(frame)) + frame


# -- audio -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_rates_and_layouts_become_16_khz_mono(tmp_path: Path, rate_hz: int, layout: str) -> None:
    path = write_media(
        tmp_path / "clip.wav",
        None,
        Audio(codec="pcm_s16le", rate_hz=rate_hz, layout=layout, sound=tone(440, 0.5)),
    )
    info = probe(path)
    assert info.audio is not None
    assert info.audio.sample_rate_hz == rate_hz
    assert info.audio.channels == {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    pcm = read_audio(path).pcm
    assert len(pcm) == 32_000
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(pcm - expected)[200:-200].max() < 2e-4


@pytest.mark.parametrize("channels", [3, 9, 24])
def test_any_number_of_channels_without_names(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "array.wav"
    ramp = (np.arange(16_000) % 3000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.repeat(ramp[:, None], channels, axis=1).tobytes())
    assert np.array_equal(read_audio(path).pcm, ramp / np.float32(32768))


def test_channels_weigh_the_same(tmp_path: Path) -> None:
    def one_side(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([tone(440, 0.5)(times_s), np.zeros_like(times_s)])

    path = write_media(
        tmp_path / "clip.flac",
        None,
        Audio(codec="flac", rate_hz=16_000, layout="stereo", sound=one_side),
    )
    assert np.abs(read_audio(path).pcm).max() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("clip.wav", "pcm_s16le", "5.1"),
        ("clip.wav", "pcm_s16le", "7.1"),
        ("clip.m4a", "aac", "5.1"),
        ("clip.m4a", "aac", "7.1"),
    ],
)
def test_surround_sound_is_mixed_as_ffmpeg_mixes_it(
    tmp_path: Path, name: str, codec: str, layout: str
) -> None:
    channels = len(av.AudioLayout(layout).channels)

    def voice_in_the_centre(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((channels, len(times_s)))
        out[2] = tone(440, 0.5)(times_s)
        return out

    path = write_media(
        tmp_path / name,
        None,
        Audio(codec=codec, rate_hz=16_000, layout=layout, sound=voice_in_the_centre),
    )
    mixer = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        mixed = [part for frame in container.decode(audio=0) for part in mixer.resample(frame)]
    expected = np.concatenate([part.to_ndarray()[0] for part in mixed]) / 2**15
    assert np.abs(expected).max() > 0.1
    pcm = read_audio(path).pcm
    middle = slice(4_000, 28_000)  # a decoder's priming is dropped by us alone
    assert np.abs(pcm[middle]).max() == pytest.approx(np.abs(expected[middle]).max(), rel=0.02)


def test_of_several_sound_tracks_one_with_sound_is_heard_and_named(tmp_path: Path) -> None:
    silent, voice, music = (
        Audio(codec="pcm_s16le", rate_hz=16_000, sound=sound)
        for sound in (tone(440, 0.0), tone(440, 0.5), tone(880, 0.25))
    )
    path = write_media(tmp_path / "calls.mkv", Video(), silent, more_audio=(voice, music))
    stats = MediaStats()
    assert np.abs(read_audio(path, stats=stats).pcm).max() == pytest.approx(0.5, abs=0.01)
    assert stats.problems == [
        "hears sound track 2 of 3, as track 1 is silent; --audio-track takes another"
    ]
    with MediaReader(path, need={"audio"}, audio_track=3) as reader:
        loudest = max(np.abs(event.pcm).max() for event in reader if isinstance(event, PcmChunk))
    assert loudest == pytest.approx(0.25, abs=0.01)
    info = probe(path, audio_track=1).audio
    assert info is not None
    assert (info.track, info.choice) == (1, "hears sound track 1 of 3")
    with pytest.raises(MediaError, match="no sound track 4; they are numbered 1 to 3"):
        probe(path, audio_track=4)
    with pytest.raises(MediaError, match="no sound track 2"):
        probe(write_media(tmp_path / "one.mkv", None, voice), audio_track=2)


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [
        ("clip.mp3", "libmp3lame", 44_100),
        ("clip.mp3", "libmp3lame", 8_000),
        ("clip.flac", "flac", 96_000),
        ("clip.ogg", "libopus", 48_000),
        ("clip.m4a", "aac", 11_025),
        ("clip.aac", "aac", 44_100),
        ("clip.wav", "pcm_u8", 8_000),
        ("clip.wav", "pcm_f32le", 44_100),
        ("clip.wav", "pcm_s24le", 48_000),
    ],
)
def test_audio_files_without_video(tmp_path: Path, name: str, codec: str, rate_hz: int) -> None:
    path = write_media(
        tmp_path / name, None, Audio(codec=codec, rate_hz=rate_hz, duration_s=5, sound=noise())
    )
    info = probe(path)
    assert info.video is None
    assert info.audio is not None
    assert info.duration_s == pytest.approx(5, abs=0.1)
    whole = read_audio(path)
    assert whole.missing_samples == 0
    # A raw AAC stream does not say how much of it is priming.
    assert len(whole.pcm) == pytest.approx(80_000, abs=5000 if name == "clip.aac" else 2500)
    part = read_audio(path, 3.9, 4.4)
    assert len(part.pcm) == 8000
    assert alignment(part.pcm, whole.pcm[62_400:]) == 0
    with pytest.raises(MediaError, match=f"{name}: has no video"):
        next(iter_frames(path))


def test_audio_outside_the_stream_is_zeros_and_counted(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "clip.wav", None, Audio(codec="pcm_s16le", rate_hz=16_000, duration_s=1)
    )
    whole = read_audio(path, 0.5, 1.5)
    assert len(whole.pcm) == 16_000
    assert whole.missing_samples == 8000
    assert not whole.pcm[8000:].any()
    assert whole.pcm[:8000].any()
    beyond = read_audio(path, 5, 6)
    assert beyond.missing_samples == len(beyond.pcm) == 16_000
    assert len(read_audio(path, 5).pcm) == 0
    with pytest.raises(ValueError, match="end_s"):
        read_audio(path, 2, 1)


# -- both together ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("video_s", "audio_s"), [(1.0, 0.0), (0.0, 1.0), (5.0, 5.0)])
def test_late_streams_keep_their_offset(
    tmp_path: Path, suffix: str, video_s: float, audio_s: float
) -> None:
    path = flash_and_beep(
        tmp_path / f"clip.{suffix}",
        max(video_s, audio_s) + 0.6,
        Video(start_s=video_s),
        Audio(start_s=audio_s),
    )
    info = probe(path)
    assert info.video is not None
    assert info.audio is not None
    offset_s = video_s - audio_s
    assert info.video.start_s - info.audio.start_s == pytest.approx(offset_s, abs=0.03)
    assert min(info.video.start_s, info.audio.start_s) == 0
    got = read_all(path)
    assert got.frames[0].time_s == pytest.approx(info.video.start_s)
    assert got.chunks[0].start_s == pytest.approx(info.audio.start_s, abs=1 / 16_000)
    bright_s = next(frame.time_s for frame in got.frames if frame.rgb.mean() > 127)
    assert got.chunks[0].start_s + onset_s(joined(got.chunks)) == pytest.approx(bright_s, abs=0.005)
    starts = [start_of(event) for event in got.events]
    assert starts == sorted(starts)
    # One stream alone is on the same clock.
    alone_s = next(frame.time_s for frame in iter_frames(path) if frame.rgb.mean() > 127)
    assert alone_s == bright_s
    audio = read_audio(path)
    assert onset_s(audio.pcm) == pytest.approx(bright_s, abs=0.005)
    assert audio.missing_samples == round(info.audio.start_s * 16_000)


@pytest.mark.parametrize("second_s", [0.0, 500.0])
def test_joined_recordings_go_on(tmp_path: Path, second_s: float) -> None:
    """Two transport streams one after the other: the clock of the second starts over, or far ahead."""
    parts = [
        flash_and_beep(
            tmp_path / f"{start_s}-{n}.ts",
            start_s + 1.0,
            Video(start_s=start_s),
            Audio(start_s=start_s),
        )
        for n, start_s in enumerate((0.0, second_s))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    got = read_all(path)
    assert len(got.frames) == pytest.approx(100, abs=3)
    assert got.stats.splices == 1
    assert got.frames[-1].time_s == pytest.approx(4.0, abs=0.15)
    bright_s = [frame.time_s for frame in got.frames if frame.rgb.mean() > 127]
    pcm = joined(got.chunks)
    assert onset_s(pcm) == pytest.approx(bright_s[0], abs=0.005)
    second = 2.5 + onset_s(pcm[40_000:])
    assert second == pytest.approx(next(t for t in bright_s if t > 2.5), abs=0.03)
    assert got.stats.gap_samples < 1600


def test_audio_that_begins_later_than_the_container_says(tmp_path: Path) -> None:
    """Probing ends before the audio begins; FFmpeg then takes the file's start for the stream's."""
    silent = write_media(tmp_path / "silent.ts", Video())
    spoken = write_media(tmp_path / "spoken.ts", Video(start_s=3.0), Audio(start_s=3.0))
    path = tmp_path / "joined.ts"
    path.write_bytes(silent.read_bytes() + spoken.read_bytes())
    got = read_all(path, options={"probesize": "5000", "analyzeduration": "100000"})
    assert got.info.audio is not None
    assert got.info.audio.start_s == 0.0
    assert numbers(got.frames) == [*range(50), *range(50)]
    assert got.chunks[0].start_s == pytest.approx(got.frames[50].time_s, abs=0.03)


def test_missing_streams_are_absent_and_named(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4", Video())
    clip = load_clip(silent)
    assert clip.frames is not None
    assert clip.audio is None
    assert clip.missing == {"audio": f"{silent}: has no audio"}
    assert read_all(silent).chunks == []
    with pytest.raises(MediaError, match=r"silent\.mp4: has no audio"):
        read_audio(silent)
    with pytest.raises(MediaError, match=r"silent\.mp4: has no audio"):
        load_clip(silent, need={"audio"})
    with pytest.raises(MediaError, match=r"silent\.mp4: has no audio"):
        MediaReader(silent, need={"audio"})


def test_a_clip_of_a_range(tmp_path: Path) -> None:
    path = write_kind(tmp_path, "mp4", seconds=8.0)
    clip = load_clip(path, 4, 5.0, 6.0)
    assert clip.frames is not None
    assert clip.audio is not None
    assert [read_number(rgb) for rgb in clip.frames] == [125 + i for i in (3, 9, 15, 21)]
    assert clip.frame_times_s == pytest.approx([5.12, 5.36, 5.6, 5.84])
    assert len(clip.audio) == 16_000
    assert np.abs(clip.audio - read_audio(path).pcm[80_000:96_000]).max() < 0.05
    with pytest.raises(MediaError, match=r"no video frame from 50\.0 s to 51\.0 s"):
        load_clip(path, 4, 50.0, 51.0)


def test_a_clip_decodes_only_what_its_frames_need(tmp_path: Path, monkeypatch) -> None:
    from emostream.media.source import PacketSource

    path = write_media(tmp_path / "clip.mp4", Video(duration_s=20, keyframe_every=25))
    decoded = 0
    decode = PacketSource.decode

    def counting(self: PacketSource, packet):
        nonlocal decoded
        decoded += bool(packet.size)
        return decode(self, packet)

    monkeypatch.setattr(PacketSource, "decode", counting)
    clip = load_clip(path)
    assert clip.frames is not None
    indices = segment_midpoint_indices(500, 8)
    assert [read_number(rgb) for rgb in clip.frames] == indices.tolist()
    assert decoded <= 8 * 26 + 8


def test_memory_stays_bounded_when_streams_are_far_apart(tmp_path: Path) -> None:
    """All audio is stored after all video: frames are let go, late audio comes late, nothing is lost."""
    path = write_media(tmp_path / "clip.mkv", Video(duration_s=6), Audio(duration_s=6, start_s=0))
    apart = tmp_path / "apart.nut"
    remux_apart(path, apart)
    with MediaReader(apart) as reader:
        waiting, frames, samples = 0, [], 0
        for event in reader:
            if isinstance(event, TimedFrame):
                frames.append(event)
                waiting = max(waiting, reader.stats.frames - len(frames))
            else:
                samples += len(event.pcm)
    assert numbers(frames) == list(range(150))
    assert waiting <= MAX_HELD + 1
    assert samples == pytest.approx(96_000, abs=1800)


def remux_apart(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        streams = {
            stream.index: output.add_stream_from_template(stream) for stream in container.streams
        }
        packets = [packet for packet in container.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.stream_index):
            packet.stream = streams[packet.stream_index]
            output.mux_one(packet)


def test_reading_can_be_interrupted_and_closed(tmp_path: Path) -> None:
    path = write_kind(tmp_path, "mp4")
    with MediaReader(path) as reader:
        first = next(reader)
        assert not reader.interrupted
        reader.interrupt()
        assert reader.interrupted
        assert len(list(reader)) < 100
    reader.close()
    assert start_of(first) == 0.0
    with pytest.raises(StopIteration):
        next(reader)


def test_what_is_needed_must_be_named(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", Video(duration_s=0.2))
    for need in (set(), {"smell"}):
        with pytest.raises(ValueError, match="need"):
            MediaReader(path, need=need)
        with pytest.raises(ValueError, match="need"):
            load_clip(path, need=need)


def test_importing_media_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, emostream.media, emostream.sampling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the interleaver -------------------------------------------------------------------------------------------------


def test_events_wait_for_the_other_stream() -> None:
    merge = Interleaver(reorder_s=10)
    merge.open("video", 0.0)
    merge.open("audio", 0.0)
    merge.put("video", 0.5, "frame")
    merge.mark("video", 0.5)
    assert list(merge.ready()) == []
    merge.put("audio", 0.4, "chunk")
    merge.mark("audio", 0.45)
    assert list(merge.ready()) == [(0.4, "chunk")]
    merge.mark("audio", 0.5)
    assert list(merge.ready()) == [(0.5, "frame")]


def test_a_stream_that_ended_or_lags_is_not_waited_for() -> None:
    merge = Interleaver(reorder_s=1.0)
    merge.open("video", 0.0, max_held=3)
    merge.open("audio", 0.0)
    for n in range(4):
        merge.put("video", n * 0.1, n)
        merge.mark("video", n * 0.1)
    assert list(merge.ready()) == [(0.0, 0)]
    assert not merge.overdue("video")
    merge.mark("video", 1.5)
    assert merge.overdue("video")
    assert [event for _, event in merge.ready()] == [1, 2, 3]
    merge.put("video", 1.6, "late")
    merge.end("audio")
    assert list(merge.ready()) == [(1.6, "late")]
