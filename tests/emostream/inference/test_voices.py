"""Windows of a model that gets to know voices, through the streaming encoder; random weights, real talk."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from emostream.errors import ConfigError
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.inference.voices import Voices, voices_of
from emostream.media import read_audio
from emostream.model.presets import from_preset
from emostream.people.voice_baseline import VoiceStretch

PLACES = (0, 4, 8, 10, 12)
PCM = read_audio(Path(str(files("stream") / "assets" / "demo.mp4")), 0, 10.0).pcm


@pytest.fixture(scope="module")
def small():
    return from_preset("small")


def window(place, source="s", person=1):
    start = 8000 * place
    return MediaWindow(
        source=source,
        audio=PCM[start : start + 64_000],
        voice=VoiceStretch(start=start, samples=64_000, person=person),
    )


def test_windows_of_one_pass_are_heard_one_after_another(small):
    alone, together = Recognizer(*small), Recognizer(*small)
    one = [alone.recognize([window(place)])[0] for place in PLACES]
    # Another source, and a window without sound's person, change nothing.
    others = [window(place, "other", person=9) for place in PLACES]
    mixed = [w for pair in zip((window(p) for p in PLACES), others, strict=True) for w in pair]
    many = together.recognize(mixed)[::2]
    assert [r.baseline_s for r in many] == pytest.approx([r.baseline_s for r in one])
    assert [r.baseline_s for r in one[:2]] == [0, 0]
    assert 1 < one[2].baseline_s < one[-1].baseline_s < 7
    for a, b in zip(one, many, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)
    # The same window of a stranger is heard otherwise.
    [stranger] = alone.recognize([replace(window(12), source="new")])
    assert stranger.baseline_s == 0
    assert stranger.scores != pytest.approx(one[-1].scores, abs=1e-5)
    alone.forget("s")
    [again] = alone.recognize([window(12)])
    assert again.scores == pytest.approx(stranger.scores, abs=1e-6)


def test_a_stranger_is_heard_as_the_model_itself_hears_him(small):
    model, processor = small
    tokens = Recognizer(model, processor).encoder.encode([window(0)])[0].audio
    with torch.inference_mode():
        wanted = model.model.audio_projector(model.model.audio(processor.mel(PCM[:64_000])[None]))
    torch.testing.assert_close(tokens, wanted[0], rtol=1e-4, atol=1e-5)
    off = Recognizer(model, processor, voices=Voices(model, follow=False))
    found = [off.recognize([window(place)])[0] for place in (0, 1, 2)]
    assert [r.baseline_s for r in found] == [None] * 3
    [unknown] = Recognizer(model, processor).recognize([replace(window(2), voice=None)])
    assert unknown.scores == pytest.approx(found[2].scores, abs=1e-6)


def test_without_the_encoder_what_is_behind_it_stays():
    model, processor = from_preset("small")
    whole = Recognizer(model, processor)
    encoders = whole.encoder._encoders
    wanted = [whole.recognize([window(place)])[0] for place in PLACES]
    backbone = encoders._backbone.audio_tower.audio_tower["encoder"]
    mels = [processor.mel(window(place).audio)[None] for place in PLACES]
    with torch.inference_mode():
        steps = [model.model.audio_tower.encode(mel) for mel in mels]
    model.drop_encoders()
    assert backbone not in list(model.modules())

    class Compiled:
        device, description = torch.device("cpu"), "kept"

        def audio(self, mel):
            [found] = [x for m, x in zip(mels, steps, strict=True) if torch.equal(m, mel)]
            return found

    bare = Recognizer(model, processor, encoders=Compiled())
    for place, expected in zip(PLACES, wanted, strict=True):
        [found] = bare.recognize([window(place)])
        assert found.scores == pytest.approx(expected.scores, abs=1e-6)
        assert found.baseline_s == expected.baseline_s


def test_a_file_is_written_now_and_then_and_at_the_end(small, tmp_path, monkeypatch):
    path = tmp_path / "me"
    recognizer = Recognizer(*small, voices=voices_of(small[0], file=path))
    recognizer.voices.keeps = "s"
    recognizer.recognize([window(0), window(0, "visitor"), window(8)])
    recognizer.voices.save(due=True)
    assert not path.exists()
    monkeypatch.setattr("emostream.inference.voices.SAVED_EVERY_S", 0.0)
    recognizer.voices.save(due=True)
    [known_s] = heard_by(small, path)
    assert known_s > 2
    recognizer.forget("s")
    recognizer.recognize([window(2)])
    recognizer.voices.save()
    both = heard_by(small, path, "s", "t")
    assert both[0] > known_s + 4
    assert both[0] == both[1], "no source is named: whoever it is, is this person"


def heard_by(small, path, *sources):
    """How much is known of the person of each source to a process that begins with the file."""
    read = Recognizer(*small, voices=voices_of(small[0], file=path))
    windows = [window(5, source) for source in sources or ("s",)]
    return [read.recognize([w])[0].baseline_s for w in windows]


def test_there_is_nothing_to_keep_of_a_model_that_knows_nobody(tmp_path):
    model, _ = from_preset("tiny")
    assert voices_of(model) is None
    with pytest.raises(
        ConfigError, match=r"--baseline me: .* not standardised .* Leave --baseline out"
    ):
        voices_of(model, file="me")


def test_silence_teaches_nothing(small):
    recognizer = Recognizer(*small)
    recognizer.recognize(
        [replace(window(p), voice=replace(window(p).voice, spoken=())) for p in (0, 1, 8)]
    )
    picture = np.zeros((64, 64, 3), np.uint8)
    soundless = replace(window(20), audio=None, keys=(1,), frames=(picture,))
    [next_one] = recognizer.recognize([soundless])
    assert next_one.baseline_s == 0
