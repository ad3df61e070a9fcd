"""Media decoding of files that are cut, damaged, mislabelled or not media: what decodes arrives, the rest is told."""

from pathlib import Path

import av
import numpy as np
import pytest

from emostream.errors import MediaError
from emostream.media import MediaReader, MediaStats, TimedFrame, iter_pcm, load_clip, probe
from tests.media_factory import Audio, Video, damage, noise, read_number, truncate, write_media

SECONDS = 4


def write(path: Path, **muxer: str) -> Path:
    webm = path.suffix == ".webm"
    video = Video(duration_s=SECONDS, codec="libvpx-vp9" if webm else "libx264")
    audio = Audio(duration_s=SECONDS, codec="libopus" if webm else "aac", sound=noise())
    return write_media(path, video, audio, muxer)


def read(path: Path) -> tuple[list[int], int, MediaStats]:
    """Numbers of the frames, count of samples, stats; the clock must go forward throughout."""
    with MediaReader(path) as reader:
        frames, samples, last_s = [], 0, -1.0
        for event in reader:
            if isinstance(event, TimedFrame):
                assert event.time_s > last_s
                last_s = event.time_s
                frames.append(event)
            else:
                samples += len(event.pcm)
    return [read_number(frame.rgb) for frame in frames], samples, reader.stats


@pytest.mark.parametrize(
    ("name", "muxer"),
    [
        ("cut.mkv", {}),
        ("cut.webm", {}),
        ("cut.mp4", {"movflags": "faststart"}),
        ("cut.ts", {}),
        ("cut.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_file_cut_short_gives_what_is_left_and_says_so(
    tmp_path: Path, name: str, muxer: dict[str, str]
) -> None:
    path = truncate(write(tmp_path / name, **muxer), 0.6)
    numbers, samples, stats = read(path)
    assert numbers[:50] == list(range(50))
    assert len(numbers) < 80
    assert 32_000 < samples < 48_000
    # Transport streams and fragments do not promise a length, so that nothing is missing from them.
    promised = name.endswith(("mkv", "webm")) or "faststart" in muxer.values()
    assert (stats.short_by_s > 1) == promised
    assert any("before its header says" in problem for problem in stats.problems) == promised
    clip = load_clip(path)
    assert clip.frames is not None
    assert clip.audio is not None
    assert (clip.stats.short_by_s > 1) == promised
    assert len({read_number(rgb) for rgb in clip.frames}) == 8


def test_a_clip_cut_short_says_so_in_whatever_kind_of_collection_both_are_asked_for(
    tmp_path: Path,
) -> None:
    path = truncate(write(tmp_path / "cut.mkv"), 0.6)
    assert load_clip(path, need=("audio", "video")).stats.short_by_s > 1


def test_an_mp4_without_its_index_is_named_as_such(tmp_path: Path) -> None:
    path = truncate(write(tmp_path / "cut.mp4"), 0.6)
    for reading in (probe, load_clip, MediaReader):
        with pytest.raises(MediaError, match=r"cut\.mp4: begins as MP4 but its index \(moov\)"):
            reading(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "avi"])
def test_a_damaged_middle_is_passed_over(tmp_path: Path, suffix: str) -> None:
    path = damage(write(tmp_path / f"hurt.{suffix}"), 0.4, 0.5)
    numbers, samples, stats = read(path)
    assert numbers[:25] == list(range(25))
    # The concealed frames in between may show anything; after the next keyframe all is well.
    assert numbers[-25:] == list(range(75, 100))
    if suffix != "avi":  # which stores no times: what is lost there shifts the rest
        assert samples == pytest.approx(SECONDS * 16_000, abs=1000)
    assert stats.gap_samples > 0
    if suffix != "webm":  # whose demuxer goes on at the next cluster without a word
        assert stats.decode_errors > 0
        assert stats.problems
    clip = load_clip(path)
    assert clip.frames is not None
    assert [read_number(clip.frames[i]) for i in (0, 1, 6, 7)] == sorted(
        read_number(clip.frames[i]) for i in (0, 1, 6, 7)
    )
    assert clip.missing_samples > 0
    assert clip.stats.gap_samples == clip.missing_samples


def test_lost_audio_packets_are_silence_in_their_place(tmp_path: Path) -> None:
    sound = noise(amplitude=0.1)
    for name, lost in (("whole.mkv", ()), ("lost.mkv", [(1.5, 2.0)])):
        audio = Audio(duration_s=3, rate_hz=16_000, codec="pcm_s16le", sound=sound, lost=lost)
        write_media(tmp_path / name, None, audio)
    stats = MediaStats()
    chunks = list(iter_pcm(tmp_path / "lost.mkv", stats=stats))
    pcm = np.concatenate([chunk.pcm for chunk in chunks])
    whole = np.concatenate([chunk.pcm for chunk in iter_pcm(tmp_path / "whole.mkv")])
    silent = np.flatnonzero((pcm == 0) & (whole != 0))
    assert len(pcm) == len(whole)
    assert stats.gap_samples == sum(chunk.gap_samples for chunk in chunks)
    assert stats.gap_samples == pytest.approx(len(silent), abs=8)
    assert silent[0] / 16_000 == pytest.approx(1.5, abs=0.07)
    kept = np.r_[0 : silent[0], silent[-1] + 1 : len(pcm)]
    assert np.array_equal(pcm[kept], whole[kept])


def test_lost_frames_leave_their_time_empty(tmp_path: Path) -> None:
    path = write_media(tmp_path / "lost.mkv", Video(codec="mjpeg", duration_s=2, lost=[(0.5, 1.0)]))
    numbers, _, _ = read(path)
    assert numbers == [*range(13), *range(25, 50)]


def test_a_clip_frame_that_does_not_decode_is_replaced_and_counted(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", Video(codec="mjpeg"))
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    data = bytearray(path.read_bytes())
    for frame in (3, 21):
        at, size = places[frame]
        data[at : at + size] = bytes(size)
    path.write_bytes(data)
    clip = load_clip(path)
    assert clip.frames is not None
    # 3 has none before it, and takes the first after it.
    assert [read_number(rgb) for rgb in clip.frames] == [9, 9, 15, 15, 28, 34, 40, 46]
    assert clip.frame_times_s[:4] == pytest.approx([0.36, 0.36, 0.6, 0.6])
    assert clip.stats.frames_replaced == 2
    assert clip.stats.decode_errors == 2


def test_video_of_which_nothing_decodes_is_missing_from_the_clip(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", Video(codec="mjpeg"), Audio())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in places:
        data[at : at + size] = bytes(size)
    path.write_bytes(data)
    clip = load_clip(path)
    assert clip.frames is None
    assert clip.missing == {"video": f"{path}: no video frame decodes from 0.0 s on"}
    assert clip.stats.decode_errors == 8
    with pytest.raises(MediaError, match="no video frame decodes"):
        load_clip(path, need={"video"})
    info = probe(path)
    assert info.video is not None
    assert info.video.rotation_deg is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("noise.mp4", np.random.default_rng(1).bytes(50_000), "not a video or audio file"),
        ("noise.bin", np.random.default_rng(2).bytes(500_000), "not a video or audio file"),
        ("notes.txt", b"hello, world\n" * 100, "is text"),
        ("notes.mp4", b"hello, world\n" * 100, "not a video or audio file"),
        ("words.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n", "neither video nor audio"),
        ("empty.mp4", b"", "is empty"),
    ],
)
def test_what_is_not_media_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for reading in (probe, load_clip, MediaReader, lambda path: list(iter_pcm(path))):
        with pytest.raises(MediaError, match=message) as refusal:
            reading(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert "\n" not in str(refusal.value)


def test_a_file_cut_within_its_header_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MediaError, match=r"clip\.mkv: ends before it has said what it holds"):
        probe(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.mp4: no such file"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a folder"):
        load_clip(tmp_path)


def test_media_that_ends_at_once(tmp_path: Path) -> None:
    silence = write_media(tmp_path / "zero.wav", None, Audio(codec="pcm_s16le", duration_s=0))
    assert read(silence)[:2] == ([], 0)
    with pytest.raises(MediaError, match=r"zero\.wav: no audio from 0\.0 s on"):
        load_clip(silence)
    blink = write_media(tmp_path / "blink.wav", None, Audio(codec="pcm_s16le", duration_s=0.001))
    clip = load_clip(blink)
    assert clip.audio is not None
    assert len(clip.audio) == 16


def test_codecs_that_nothing_decodes_are_named(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.avi", Video(codec="mjpeg"), Audio(codec="pcm_s16le"))
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZ9Z"))
    info = probe(path)
    assert info.video is not None
    assert not info.video.decodable
    clip = load_clip(path)
    assert clip.frames is None
    assert "video codec has no decoder" in clip.missing["video"]
    assert clip.audio is not None
    numbers, samples, stats = read(path)
    assert (numbers, samples) == ([], 32_000)
    assert any("video codec has no decoder" in problem for problem in stats.problems)
    with pytest.raises(MediaError, match="its video codec has no decoder"):
        MediaReader(path, need={"video"})


def test_a_colon_in_a_file_name_is_no_protocol(tmp_path: Path, monkeypatch) -> None:
    write_media(tmp_path / "take2.mp4", Video(duration_s=0.2)).rename(tmp_path / "take:2.mp4")
    monkeypatch.chdir(tmp_path)
    assert load_clip("take:2.mp4").frames is not None


def test_samples_that_are_not_numbers_are_silenced_and_counted(tmp_path: Path) -> None:
    def broken(times_s):
        sound = np.full(len(times_s), 0.25)
        sound[8000:8100] = np.nan
        sound[9000] = np.inf
        return sound

    path = write_media(
        tmp_path / "clip.wav",
        None,
        Audio(codec="pcm_f32le", rate_hz=16_000, sound=broken, duration_s=1),
    )
    stats = MediaStats()
    pcm = np.concatenate([chunk.pcm for chunk in iter_pcm(path, stats=stats)])
    assert np.isfinite(pcm).all()
    assert stats.decode_errors > 0
    assert "audio samples that are not numbers" in stats.problems
    assert pcm[7000] == 0.25
