"""What is heard of a person, and the file that it is kept in; expectations worked out by hand or all at once."""

import stat

import pytest
import torch

from emostream.errors import ConfigError
from emostream.people.baseline_file import load_baseline, save_baseline
from emostream.people.voice_baseline import (
    KEPT_S,
    PRIOR_S,
    STEP_S,
    STEP_SAMPLES,
    HeardVoice,
    VoiceBaseline,
    VoiceStretch,
    moments,
    speech_of,
)

D, SECOND, WINDOW = 6, 16_000, 64_000
EVERYBODY = torch.linspace(-1, 1, D), torch.linspace(0.5, 2, D)
RNG = torch.Generator().manual_seed(0)


def features(steps, at=0.0):
    return at + torch.randn(steps, D, generator=RNG)


def hear(person, x, weight):
    person.add(*moments(x[None], weight[None]), float(weight.sum()) * STEP_S)


def test_stretches_heard_one_after_another_are_as_if_heard_at_once():
    x, weight = features(900), torch.rand(900, generator=RNG).round()
    person = VoiceBaseline()
    for begin, end in ((0, 100), (100, 130), (130, 900)):
        hear(person, x[begin:end], weight[begin:end])
    hear(person, features(50), torch.zeros(50))
    mean, variance = moments(x[None], weight[None])
    torch.testing.assert_close(person.mean, mean)
    torch.testing.assert_close(person.variance, variance)
    assert person.heard_s == pytest.approx(float(weight.sum()) * STEP_S)
    person.reset()
    assert person.heard_s == 0
    assert person.blended(*EVERYBODY) == EVERYBODY


def test_a_person_weighs_more_the_longer_he_was_heard():
    person = VoiceBaseline()
    person.add(torch.full((D,), 3.0), torch.full((D,), 4.0), 2.0)
    mean, std = person.blended(torch.ones(D), torch.full((D,), 3.0))
    torch.testing.assert_close(mean, torch.full((D,), 1 + (3 - 1) * 0.2))  # 2 / (2 + 8)
    torch.testing.assert_close(std, torch.full((D,), (9 + (4 - 9) * 0.2) ** 0.5))
    assert PRIOR_S == 8


def test_what_was_heard_long_ago_fades():
    person = VoiceBaseline()
    person.add(torch.zeros(D), torch.ones(D), KEPT_S)
    for _ in range(10):
        person.add(torch.ones(D), torch.ones(D), KEPT_S / 10)
    assert person.heard_s == KEPT_S
    torch.testing.assert_close(person.mean, torch.full((D,), 1 - 0.9**10))
    person.add(torch.full((D,), 7.0), torch.ones(D), 2 * KEPT_S)
    assert (person.heard_s, person.mean[0]) == (KEPT_S, 7)


def test_what_is_no_number_is_not_learned():
    person = VoiceBaseline()
    hear(person, torch.full((10, D), torch.nan), torch.ones(10))
    assert person.heard_s == 0


def test_speech_is_loud_and_told_to_be_speech():
    mel = torch.full((4, 20), -1.0)
    mel[2, 6:] = 0.5
    loud = torch.tensor([0.0] * 3 + [1.0] * 7)
    assert torch.equal(speech_of(mel, None), loud)
    start = 1000
    spoken = (
        (start, start + 5 * STEP_SAMPLES),
        (start + 9 * STEP_SAMPLES, start + 99 * STEP_SAMPLES),
    )
    told = torch.tensor([1.0] * 5 + [0.0] * 4 + [1.0])
    assert torch.equal(speech_of(mel, spoken, start), loud * told)
    assert torch.equal(speech_of(mel, (), start), torch.zeros(10))


class Source:
    """Windows of 4 s every half second, all of them loud."""

    def __init__(self, baseline=None):
        self.heard, self.end_s = HeardVoice(baseline), 4.0
        self.speech = torch.ones(200)

    def window(self, x, *, person=1, theirs=True, again=False):
        stretch = VoiceStretch(
            start=round(self.end_s * SECOND) - WINDOW, samples=WINDOW, person=person, theirs=theirs
        )
        self.end_s += 0.0 if again else 0.5
        return self.heard.take(x, self.speech, stretch, *EVERYBODY)


def test_a_window_is_standardised_by_what_was_heard_before_it_began_and_each_second_counts_once():
    source = Source()
    heard = [source.window(features(200))[2] for _ in range(11)]
    assert heard == pytest.approx([0] * 8 + [4, 4.5, 5])
    # Three that the model had no time for: their sound is in the next one, as long as that reaches back.
    source.end_s += 1.5
    source.window(features(200))
    source.heard.finish()
    assert source.heard.baseline.heard_s == pytest.approx(4 + 0.5 * 10 + 2.0)


def test_the_same_window_once_more_is_standardised_as_before():
    source = Source()
    for _ in range(9):
        source.window(features(200, 5.0))
    first = source.window(features(200, 5.0), again=True)
    assert first[2] == 4.5
    again = source.window(features(200, 90.0))
    assert torch.equal(first[0], again[0])
    source.heard.finish()
    assert source.heard.baseline.heard_s == 4 + 0.5 * 9
    assert (source.heard.baseline.mean < 6).all()


def test_somebody_else_begins_anew_and_is_not_told_of_the_one_before():
    source = Source()
    for _ in range(9):
        heard_s = source.window(features(200, 5.0), person=1)[2]
    assert heard_s == 4
    mean, std, heard_s = source.window(features(200, 5.0), person=2)
    assert heard_s == 0
    assert torch.equal(mean, EVERYBODY[0])
    assert torch.equal(std, EVERYBODY[1])
    # For 4 s a window still holds what was said before.
    for _ in range(7):
        source.window(features(200, 5.0), person=2)
    heard = [source.window(features(200, -5.0), person=2)[2] for _ in range(9)]
    assert heard == [0] * 8 + [4]
    assert (source.heard.baseline.mean < 0).all()


def test_a_voice_that_is_not_theirs_is_not_learned():
    source = Source()
    source.window(features(200), person=1)
    source.window(features(200, 50.0), person=None, theirs=False)
    for _ in range(7):  # what was said meanwhile is in these
        source.window(features(200, 50.0), person=1)
    source.window(features(200), person=1)
    source.heard.finish()
    assert source.heard.baseline.heard_s == 8
    assert (source.heard.baseline.mean.abs() < 1).all()


def test_the_person_of_a_file_stays_the_same_and_a_clock_may_begin_anew():
    person = VoiceBaseline()
    person.add(torch.zeros(D), torch.ones(D), 60.0)
    source = Source(person)
    assert source.window(features(200), person=1)[2] == 60
    assert source.window(features(200), person=2)[2] == 60
    source.end_s = 4.0
    assert source.window(features(200), person=2)[2] == 60 + 4 + 0.5
    source.heard.finish()
    assert person.heard_s == 60 + 4 + 0.5 + 4


def test_a_baseline_is_kept_for_its_tower_alone(tmp_path):
    path, person = tmp_path / "me.safetensors", VoiceBaseline()
    assert load_baseline(path, *EVERYBODY).heard_s == 0
    save_baseline(path, person, *EVERYBODY)
    assert not path.exists(), "nothing was heard"
    hear(person, features(500), torch.ones(500))
    save_baseline(path, person, *EVERYBODY)
    save_baseline(path, person, *EVERYBODY)
    assert [file.name for file in tmp_path.iterdir()] == ["me.safetensors"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Another precision rounds what everybody's statistics are.
    rounded = [value.to(torch.bfloat16) for value in EVERYBODY]
    read = load_baseline(path, *rounded)
    assert torch.equal(read.mean, person.mean)
    assert torch.equal(read.variance, person.variance)
    assert read.heard_s == person.heard_s == 10
    for other in ((EVERYBODY[0] + 0.5, EVERYBODY[1]), (EVERYBODY[0], 2 * EVERYBODY[1])):
        with pytest.raises(ConfigError, match="another model's audio tower"):
            load_baseline(path, *other)
    with pytest.raises(ConfigError, match="another model's audio tower"):
        load_baseline(path, torch.zeros(D + 1), torch.ones(D + 1))


def test_what_is_no_baseline_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a baseline")
    with pytest.raises(
        ConfigError, match=r"--baseline .*text: wanted a baseline that emostream saved"
    ):
        load_baseline(tmp_path / "text", *EVERYBODY)
    with pytest.raises(ConfigError, match="there is no folder"):
        load_baseline(tmp_path / "absent" / "me", *EVERYBODY)
    person = VoiceBaseline()
    person.add(torch.zeros(D), torch.ones(D), 1.0)
    with pytest.raises(ConfigError, match="cannot be written"):
        save_baseline(tmp_path, person, *EVERYBODY)
