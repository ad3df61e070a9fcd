"""`emostream.recognize` on real files, in this process."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import emostream
from emostream import save_model
from emostream.checkpoint.shipped import DEFAULT_MODEL
from emostream.errors import ConfigError, MediaError
from emostream.media import read_audio
from emostream.model.presets import from_preset
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
    assert {(label.model, label.people) for label in labels} == {(DEFAULT_MODEL, 1)}
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
    labels = emostream.recognize(clip, model="tiny", reason_every_s=0, people=0)
    assert [label.window for label in labels] == [label.window for label in reference]
    for label, wanted in zip(labels, reference, strict=True):
        assert label.scores == pytest.approx(wanted.scores, abs=1e-4)


def test_one_recognizer_for_two_files_of_one_name_remembers_nothing_of_the_first(tmp_path):
    recognizer = load_recognizer(ModelConfig(model="tiny"))
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


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model that gets to know voices, with random weights, and a sound file with talk in it."""
    folder = tmp_path_factory.mktemp("small")
    with as_file(files("stream").joinpath("assets", "demo.mp4")) as demo:
        pcm = read_audio(demo, 0, 6.5).pcm
    sound = Audio(
        duration_s=6.0, codec="pcm_s16le", sound=lambda t: pcm[np.rint(16_000 * t).astype(int)]
    )
    return save_model(*from_preset("small"), folder / "model"), write_media(
        folder / "a.wav", None, sound
    )


def test_a_voice_is_known_from_one_file_to_the_next_where_that_is_wanted(small, tmp_path):
    model, clip = small
    kept, out = tmp_path / "me", tmp_path / "reference.jsonl"
    first = emostream.recognize(clip, model=model, reason_every_s=0, baseline=kept)
    assert {label.baseline_s for label in first} == {0}, "nothing was heard before they began"
    other = shutil.copy(kept, tmp_path / "other")
    again = emostream.recognize(clip, model=model, reason_every_s=0, baseline=kept)
    told = run_command(
        *("infer", str(clip), "--model", str(model), "--out", str(out)),
        *("--baseline", str(other), "--people", "1"),
    )
    assert told.returncode == 0, told.stderr
    reference = list(recording.read(out))
    assert [label.window for label in again] == [label.window for label in reference]
    for label, wanted in zip(again, reference, strict=True):
        assert label.scores == pytest.approx(wanted.scores, abs=1e-4)
        assert label.baseline_s == pytest.approx(wanted.baseline_s)
    mine, theirs = load_file(kept), load_file(other)
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)
    assert again[0].baseline_s > 3
    assert again[0].scores != pytest.approx(first[0].scores, abs=1e-6)
    strangers = emostream.recognize(clip, model=model, reason_every_s=0, baseline="off")
    assert {label.baseline_s for label in strangers} == {None}
    assert strangers[0].scores == pytest.approx(first[0].scores, abs=1e-6)


def test_a_baseline_is_of_one_person_and_of_a_model_that_has_any(small, tmp_path):
    model, clip = small
    kept = tmp_path / "me"
    with pytest.raises(
        ConfigError, match=r"--baseline .*me: .* not standardised .* Leave --baseline out"
    ):
        emostream.recognize(clip, model="tiny", baseline=kept)
    with pytest.raises(
        ConfigError, match="keeps one person's voice, and with --people 8 there may be more"
    ):
        emostream.recognize(clip, model=model, baseline=kept, people="all")
    for more, said in (
        (["run", "--source", str(clip), "--source", f"b={clip}"], "and with 2 sources there may"),
        (["run", "--source", str(clip), "--ingest", "tcp://127.0.0.1:*"], "any number of sources"),
        (["annotate", str(clip), "--out", str(tmp_path / "out")], "wanted off, or nothing"),
    ):
        told = run_command(*more, "--model", str(model), "--baseline", str(kept))
        assert told.returncode == 2
        [line] = told.stderr.splitlines()
        assert said in line
    assert not kept.exists()
