"""The offline reference and the windower with the streaming model say the same of real files."""

import random
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from emostream.inference.recognizer import Recognizer
from emostream.inference.voices import Voices
from emostream.labels import DEFAULT_LABELS
from emostream.media import (
    MediaReader,
    MediaStats,
    TimedFrame,
    iter_frames,
    load_clip,
    read_audio,
    short_clip_times,
)
from emostream.model.presets import from_preset
from stream.commands.file_windows import file_windows
from stream.commands.offline import infer
from stream.serve.loop import media_window
from stream.windows.attendance import Attendant
from stream.windows.config import InferenceConfig
from stream.windows.windower import Windower
from tests.media_factory import Audio, Video, noise, truncate, write_media
from training.synth.media import write_mp4

DEMO = Path(str(files("stream") / "assets" / "demo.mp4"))
CASES = {
    "both.mp4": (Video(duration_s=7.3), Audio(duration_s=7.3, sound=noise())),
    "slow_video.mp4": (Video(duration_s=6.2, fps=3), None),
    # Without a frame for every grid point: one from before the window may stand in.
    "sparse_video.mp4": (Video(duration_s=6.2, fps=1.5), None),
    "sound.wav": (None, Audio(duration_s=5.7, codec="pcm_s16le", sound=noise())),
    "late_video.mp4": (
        Video(duration_s=4, fps=10, start_s=3.0),
        Audio(duration_s=7, sound=noise()),
    ),
    "four_seconds.mp4": (Video(duration_s=4.0), Audio(duration_s=4.0, sound=noise())),
    # Shorter than a window, and so one label over all of it.
    "utterance.mp4": (Video(duration_s=3.3, fps=30), Audio(duration_s=3.3, sound=noise())),
    "word.wav": (None, Audio(duration_s=0.3, codec="pcm_s16le", sound=noise())),
    "glance.mp4": (Video(duration_s=1.5), None),
    "one_frame.mkv": (Video(duration_s=0.04), None),
    "few_frames.mp4": (
        Video(duration_s=1.0, fps=3),
        Audio(duration_s=1.0, start_s=0.6, sound=noise()),
    ),
    "video_of_a_part.mkv": (
        Video(duration_s=0.5, fps=10),
        Audio(duration_s=3.0, sound=noise(), codec="pcm_s16le"),
    ),
    "short.mp4": (Video(duration_s=2.2, fps=10), Audio(duration_s=2.2, sound=noise())),
    "video_ends_early.mkv": (
        Video(duration_s=3, fps=10),
        Audio(duration_s=8, sound=noise(), codec="pcm_s16le"),
    ),
}


def talk(times_s):
    """The demo's."""
    pcm = read_audio(DEMO, 0, 12.0).pcm
    return np.interp(times_s, np.arange(len(pcm)) / 16_000, pcm).astype(np.float32)


@pytest.fixture(scope="module")
def tiny():
    return from_preset("tiny", seed=1)


def streamed(path, model, processor, config, seed):
    """The same file through the live pipeline's windower and model, in pieces of random length, by name and window."""
    recognizer, out = Recognizer(model, processor), {}
    attendant = Attendant(model.config, config.people) if config.people else None
    generator = random.Random(seed)
    with MediaReader(path, chunk_s=generator.uniform(0.01, 0.7)) as reader:
        streams = [name for name in ("video", "audio") if getattr(reader.info, name) is not None]
        windower = Windower(
            "x",
            modalities=streams,
            lossless=True,
            hop_steps=config.hop_steps,
            window_s=config.window_s,
        )

        def drain():
            while (window := windower.advance()) is not None:
                people = [(window, None)] if attendant is None else attendant.attend(window)
                seen = [(seen, found) for seen, found in people if not seen.lost]
                for (window, _), said in zip(
                    seen, recognizer.recognize([media_window(*s) for s in seen]), strict=True
                ):
                    out[window.source, window.id] = window, said

        held = []
        for event in reader:
            held.append(event)
            if generator.random() < 0.3:
                continue
            for item in held:
                if isinstance(item, TimedFrame):
                    windower.add_frame(item.time_s, item.rgb)
                else:
                    windower.add_pcm(item.start_s, item.pcm)
            held.clear()
            drain()
        for item in held:
            if isinstance(item, TimedFrame):
                windower.add_frame(item.time_s, item.rgb)
            else:
                windower.add_pcm(item.start_s, item.pcm)
        windower.mark_end()
        drain()
    return out


@pytest.mark.parametrize("hop_steps", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_streaming_equals_the_offline_reference(tmp_path, tiny, name, hop_steps):
    model, processor = tiny
    path = write_media(tmp_path / name, *CASES[name])
    config = InferenceConfig(hop_steps=hop_steps)
    reference = {
        (label.source, label.window.id): label
        for label in infer(path, model, processor, config, DEFAULT_LABELS, source="x")
    }
    live = streamed(path, model, processor, config, seed=hop_steps)
    assert reference
    assert list(live) == list(reference)
    for index, label in reference.items():
        window, recognition = live[index]
        assert recognition.scores == pytest.approx(label.scores, abs=1e-4)
        assert window.modalities == label.modalities
        assert window.frames_used == label.frames_used
        assert window.audio_gap_ms == pytest.approx(label.audio_gap_ms, abs=1)
        assert window.av_skew_ms == (
            None if label.av_skew_ms is None else pytest.approx(label.av_skew_ms, abs=1)
        )
        assert (window.start_s, window.end_s) == (label.window.start_s, label.window.end_s)


def test_a_short_clip_is_sampled_as_training_samples_it(tmp_path, tiny):
    model, processor = tiny
    path = write_media(tmp_path / "utterance.mp4", *CASES["utterance.mp4"])
    stats = MediaStats()
    config = InferenceConfig()
    [label] = infer(path, model, processor, config, DEFAULT_LABELS, source="x", stats=stats)
    assert (label.window.id, label.window.start_s) == (7, 0.0)
    assert label.window.end_s == pytest.approx(3.3, abs=0.03)
    assert stats.problems == [
        f"is {label.window.end_s:.2f} s long, shorter than the window of 4 s: one label over all of it"
    ]
    [window] = file_windows(
        path,
        config,
        source="x",
        audio_track=None,
        most_samples=processor.context_samples(),
        stats=stats,
    )
    clip = load_clip(path)
    np.testing.assert_array_equal(np.stack([frame.rgb for frame in window.frames]), clip.frames)
    np.testing.assert_array_equal(window.pcm[: len(clip.audio)], clip.audio)
    # What a capture process sends of it, without decoding the file first.
    times_s = short_clip_times(path, 8, 3.75)
    assert times_s == clip.frame_times_s.tolist()
    assert short_clip_times(path, 8, 3.0) is None


def test_a_stream_that_changes_its_size_is_labelled_throughout(tmp_path, tiny):
    parts = [
        write_media(
            tmp_path / f"{width}.ts", Video(size=(width, 120), start_s=start_s, duration_s=2.5)
        )
        for width, start_s in ((160, 0.0), (240, 2.5))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reference = list(infer(path, *tiny, InferenceConfig(), DEFAULT_LABELS, source="x"))
    live = streamed(path, *tiny, InferenceConfig(), seed=1)
    assert [("x", label.window.id) for label in reference] == list(live)
    assert [label.window.id for label in reference] == [8, 9, 10]
    for label in reference:
        assert live["x", label.window.id][1].scores == pytest.approx(label.scores, abs=1e-4)


def test_a_file_cut_short_is_named_and_says_how_much_was_read(tmp_path, tiny):
    video, audio = Video(duration_s=8), Audio(duration_s=8, sound=noise())
    path = write_media(tmp_path / "cut.mp4", video, audio, {"movflags": "faststart"})
    truncate(path, 0.6)
    stats = MediaStats()
    labels = list(infer(path, *tiny, InferenceConfig(), DEFAULT_LABELS, source="x", stats=stats))
    assert labels
    [said] = [problem for problem in stats.problems if "before its header says" in problem]
    assert said.endswith("of 8.0 s could be read")


def test_sound_beyond_what_the_model_hears_is_said(tmp_path, tiny):
    model, processor = tiny
    path = write_media(tmp_path / "sound.wav", *CASES["sound.wav"])
    processor.audio_context_s = 1.0
    try:
        label = next(infer(path, model, processor, InferenceConfig(), DEFAULT_LABELS, source="x"))
    finally:
        processor.audio_context_s = None
    assert (label.modalities.audio, label.audio_gap_ms) == ("degraded", 3000)


def test_a_file_too_thin_for_any_label_says_why(tmp_path, tiny):
    path = write_media(
        tmp_path / "thin.mkv",
        Video(duration_s=0.5, fps=10),
        Audio(duration_s=1, start_s=4.0, codec="pcm_s16le", sound=noise()),
    )
    stats = MediaStats()
    assert not list(infer(path, *tiny, InferenceConfig(), DEFAULT_LABELS, source="x", stats=stats))
    assert any("more than half" in problem for problem in stats.problems)


@pytest.mark.parametrize("people", [0, 1])
def test_a_voice_that_becomes_known_is_heard_alike_live_and_offline(tmp_path, people):
    model, processor = from_preset("small")
    path = tmp_path / "talk.wav"
    write_media(path, None, Audio(duration_s=11.3, codec="pcm_s16le", sound=talk))
    config = InferenceConfig(people=people, hop_steps=2)
    reference = list(infer(path, model, processor, config, DEFAULT_LABELS, source="x"))
    live = streamed(path, model, processor, config, seed=people)
    assert [("x", label.window.id) for label in reference] == list(live)
    for label in reference:
        recognition = live["x", label.window.id][1]
        assert recognition.scores == pytest.approx(label.scores, abs=1e-4)
        assert recognition.baseline_s == pytest.approx(label.baseline_s)
    heard_s = [label.baseline_s for label in reference]
    assert heard_s[:4] == [0] * 4
    assert heard_s[4] > 2
    assert heard_s == sorted(heard_s)
    # The voice is another's than a stranger's once a whole window is past.
    off = Voices(model, follow=False)
    strangers = infer(path, model, processor, config, DEFAULT_LABELS, source="x", voices=off)
    same = [
        label.scores == pytest.approx(stranger.scores, abs=1e-6)
        for label, stranger in zip(reference, strangers, strict=True)
    ]
    assert same == [True] * 4 + [False] * (len(reference) - 4)


@pytest.mark.parametrize(
    ("preset", "frame_crop", "people"),
    [
        ("tiny", "whole", 1),
        ("tiny", "face", 1),
        ("tiny", "face", 3),
        ("tiny", "whole", 3),
        ("small", "face", 1),
    ],
)
def test_streaming_equals_the_offline_reference_where_people_come_and_go(
    tmp_path, preset, frame_crop, people
):
    model, processor = from_preset(preset, seed=1)
    model.config.frame_crop = frame_crop
    model.config.label_temperature = 3.0 if preset == "small" else 1.0
    frames = np.stack([frame.rgb for frame in iter_frames(DEMO)])[: round(9.6 * 12.5)]
    second = frames[::-1] // (2, 1, 1)  # in other clothes
    frames[: round(4.2 * 12.5)] = 90  # an empty room
    frames[round(8.1 * 12.5) :] = 90
    if people > 1:
        second[: round(5.3 * 12.5)] = 90
        frames = np.concatenate((frames, second), axis=2)
    pcm = read_audio(DEMO, 0, 9.6).pcm
    pcm[: round(2.5 * 16_000)] = 0
    write_mp4(tmp_path / "visit.mp4", frames.astype(np.uint8), pcm, 12.5, 16_000)
    config = InferenceConfig(people=people)
    reference = list(
        infer(tmp_path / "visit.mp4", model, processor, config, DEFAULT_LABELS, source="x")
    )
    live = streamed(tmp_path / "visit.mp4", model, processor, config, seed=0)
    assert [(label.source, label.window.id) for label in reference] == list(live)
    if people == 1:
        assert {(label.people, label.modalities.video) for label in reference} == {
            (0, "missing"),
            (1, "degraded"),
            (1, "ok"),
        }
    else:
        assert {label.source for label in reference} == {"x", "x-p2"}
        assert [label.seq for label in reference if label.source == "x-p2"] == list(range(9))
        assert {label.voice for label in reference} == {None, "attributed", "unattributed"}
    for label in reference:
        window, recognition = live[label.source, label.window.id]
        assert recognition.scores == pytest.approx(label.scores, abs=1e-4)
        assert window.modalities == label.modalities
        assert window.frames_used == label.frames_used
        assert recognition.baseline_s == pytest.approx(label.baseline_s)
        assert (label.baseline_s is None) == (preset == "tiny")
        assert (label.face is None) == (label.people == 0)
        assert label.absent.video == (None if label.people else "nobody visible")


def test_messages_are_numbered_and_valid(tmp_path, tiny):
    path = write_media(tmp_path / "clip.mp4", *CASES["both.mp4"])
    labels = list(infer(path, *tiny, InferenceConfig(), DEFAULT_LABELS, source="clip"))
    assert [label.seq for label in labels] == list(range(len(labels)))
    assert [label.window.id for label in labels] == list(range(8, 8 + len(labels)))
    assert {label.topic for label in labels} == {"emotion.clip.label"}
    assert all(label.unix_time_s is None for label in labels)
