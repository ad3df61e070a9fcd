"""`emostream.recognize` on real files, in this process."""

from importlib.resources import as_file, files
from pathlib import Path

import pytest

import emostream
from emostream.errors import ConfigError, MediaError
from stream.pubsub import recording
from stream.serve.model import ModelConfig, load_recognizer
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream.live_rig import run_command


def short_clip(path: Path, seed: int) -> Path:
    path.parent.mkdir()
    sound = Audio(duration_s=4.6, sound=noise(seed=seed))
    return write_media(path, Video(duration_s=4.6, fps=10 + seed), sound)


@pytest.mark.slow
def test_the_bundled_clip_gets_labels_and_reasons(tmp_path):
    with as_file(files("stream").joinpath("assets", "demo.mp4")) as clip:
        events = emostream.recognize(clip)
    labels = [event for event in events if isinstance(event, emostream.Label)]
    # The clip lasts 18 s.
    assert [label.window.id for label in labels] == list(range(8, 37))
    reasons = [event for event in events if isinstance(event, emostream.Reasoning)]
    assert len(labels) + len(reasons) == len(events)
    judged = {label.window.id: label for label in labels}
    assert reasons
    for reason in reasons:
        assert reason.done
        assert reason.think
        assert reason.answer in judged[reason.window.id].scores
    assert recording.record(events, tmp_path / "kept.jsonl") == len(events)
    assert list(recording.read(tmp_path / "kept.jsonl")) == events


def test_a_file_gets_the_labels_of_infer(tmp_path):
    clip, out = short_clip(tmp_path / "a" / "clip.mp4", 1), tmp_path / "reference.jsonl"
    assert run_command("infer", str(clip), "--out", str(out)).returncode == 0
    reference = list(recording.read(out))
    labels = emostream.recognize(clip, reason_every_s=0, people=0)
    assert [label.window for label in labels] == [label.window for label in reference]
    for label, wanted in zip(labels, reference, strict=True):
        assert label.scores == pytest.approx(wanted.scores, abs=1e-4)


def test_one_recognizer_for_two_files_of_one_name_remembers_nothing_of_the_first(tmp_path):
    recognizer = load_recognizer(ModelConfig())
    first = short_clip(tmp_path / "a" / "clip.mp4", 1)
    second = short_clip(tmp_path / "b" / "clip.mp4", 2)
    alone = emostream.recognize(second, model=recognizer, reason_every_s=0, people=0)
    other = emostream.recognize(first, model=recognizer, reason_every_s=0, people=0)
    again = emostream.recognize(second, model=recognizer, reason_every_s=0, people=0)
    assert [event.topic for event in alone] == ["emotion.clip.label"] * 2
    assert [event.scores for event in again] == [event.scores for event in alone]
    assert [event.scores for event in other] != [event.scores for event in alone]
    with pytest.raises(ConfigError, match="Recognizer given"):
        emostream.recognize(second, model=recognizer, labels=("happy", "sad"))


def test_what_is_no_media_file_is_refused_by_name(tmp_path):
    with pytest.raises(MediaError, match=r"absent\.mp4 is no file"):
        emostream.recognize(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("not a film")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        emostream.recognize(tmp_path / "text.mp4")
