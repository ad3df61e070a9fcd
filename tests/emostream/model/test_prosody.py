"""What prosody says of a voice: loudness, pitch, voicing and colour, whatever the gain."""

import pytest
import torch

from emostream.model.presets import from_preset
from emostream.model.prosody import BANDS, COEFFICIENTS, PROSODY_WIDTH, Prosody

PITCH, VOICED = 3, 6
CEPSTRUM = slice(9, 9 + COEFFICIENTS)


@pytest.fixture
def prosody():
    """Reads pitch and voicing off the first two features."""
    prosody = Prosody(4)
    with torch.no_grad():
        prosody.pitch.weight.copy_(torch.eye(2, 4))
        prosody.pitch.bias.zero_()
    return prosody.requires_grad_(False)


def hidden(pitch, voiced):
    steps = torch.tensor([pitch, voiced]).T
    return torch.cat([steps, torch.rand(len(steps), 2)], -1)[None]


def test_loudness_rises_and_falls_by_what_the_power_does(prosody):
    mel = torch.full((1, 128, 8), -1.0)
    mel[..., 2:4] += 0.5
    mel[..., 4:] += 0.25
    found = prosody(torch.zeros(1, 4, 4), mel)[0]
    assert found.shape == (4, PROSODY_WIDTH)
    loudness = torch.tensor([0.0, 0.5, 0.25, 0.25]) - 1 + torch.tensor(BANDS).log10() / 4
    torch.testing.assert_close(found[:, 0], loudness)
    torch.testing.assert_close(found[:, 1], torch.tensor([0.0, 0.5, 0.0, 0.0]))
    torch.testing.assert_close(found[:, 2], torch.tensor([0.0, 0.0, 0.25, 0.0]))
    torch.testing.assert_close(found[:, 8], torch.tensor([0.0, 0.5, 0.25, 0.0]))
    assert found[:, CEPSTRUM].abs().max() < 1e-5, "a flat spectrum has no colour"


def test_pitch_is_followed_where_there_is_a_voice(prosody):
    given = hidden([1.0, 1.5, 9.0, 0.5], [1.0, 0.75, 0.2, 0.8])
    found = prosody(given, torch.zeros(1, 128, 8))[0]
    torch.testing.assert_close(found[:, VOICED], torch.tensor([1.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(
        found[:, PITCH], torch.tensor([1.0, 1.5, 1.0, 0.5]), atol=2e-3, rtol=0
    )
    rise, fall = found[:, PITCH + 1], found[:, PITCH + 2]
    torch.testing.assert_close(rise - fall, found[:, PITCH].diff(prepend=found[:1, PITCH]))
    assert (rise * fall == 0).all()


def test_colour_is_where_the_power_lies(prosody):
    dark, bright = torch.full((2, 1, 128, 4), -1.0)
    dark[:, :32] = 1.0
    bright[:, 96:] = 1.0
    first = [prosody(torch.zeros(1, 2, 4), mel)[0, 0, CEPSTRUM][0] for mel in (dark, bright)]
    assert first[0] > 0.2
    assert first[1] < -0.2


def test_a_tower_gives_it_behind_what_its_encoder_gives():
    tower = from_preset("small")[0].model.audio_tower
    mel = torch.rand(2, 128, 60)
    with torch.inference_mode():
        found = tower.encode(mel)
        assert found.shape == (2, 30, 144 + PROSODY_WIDTH)
        level = mel - mel.amax((1, 2), keepdim=True) + 1
        wanted = tower.audio_tower["prosody"](found[..., :144], level)
        torch.testing.assert_close(found[..., 144:], wanted)
        assert tower.bfloat16().encode(mel).isfinite().all()
