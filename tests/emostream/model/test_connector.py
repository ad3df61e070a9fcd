"""The connector's split for streaming, and the towers against transformers' own forward passes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SiglipVisionConfig, SiglipVisionModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from emostream.errors import InputError
from emostream.model.configuration import CONNECTOR_SHAPES
from emostream.model.connector import Connector, FrameFeatures
from emostream.model.towers import AudioTower, VisionTower, pool_audio
from tests.checkpoint_factory import Family, randomize

WIDTH_IN, WIDTH = 12, 16
#: Connector -> patches a side that suit it (14 and 27 in the published checkpoints).
SIDES = {"all_in_one_small": 6, "all_in_one": 7}


def make_connector(kind: str) -> Connector:
    connector = Connector(WIDTH_IN, WIDTH, *CONNECTOR_SHAPES[kind])
    randomize(connector, 1)
    return connector.double().eval()


def make_window(kind: str, steps: int, batch: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, steps, SIDES[kind] ** 2, WIDTH_IN)
    features = torch.randn(shape, generator=generator, dtype=torch.double)
    return features, torch.rand(batch, 3, generator=generator, dtype=torch.double).softmax(-1)


@pytest.fixture(params=SIDES)
def kind(request):
    return request.param


@torch.inference_mode()
def step_by_step(connector: Connector, features_TLD: torch.Tensor, gate_3: torch.Tensor):
    previous = None
    out = []
    for features_LD in features_TLD:
        current = connector.frame(features_LD[None])
        if previous is None:
            previous = FrameFeatures(torch.zeros_like(current.maps), current.face)
        out.append(connector.join(previous, current, gate_3)[0])
        previous = current
    return torch.stack(out)


@settings(max_examples=12)
@given(kind=st.sampled_from(sorted(SIDES)), steps=st.integers(1, 6), seed=st.integers(0, 99))
def test_step_by_step_equals_the_whole_window(kind, steps, seed):
    connector = make_connector(kind)
    features, gate = make_window(kind, steps, seed=seed)
    with torch.inference_mode():
        whole = connector(features, gate)[0]
    torch.testing.assert_close(
        step_by_step(connector, features[0], gate[0]), whole, atol=1e-9, rtol=0
    )


def test_step_by_step_in_single_precision(kind):
    connector = make_connector(kind).float()
    features, gate = (t.float() for t in make_window(kind, 5))
    with torch.inference_mode():
        whole = connector(features, gate)[0]
    found = step_by_step(connector, features[0], gate[0])
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


def test_join_takes_many_frames_at_once_with_gates_of_their_own(kind):
    connector = make_connector(kind)
    features, gates = make_window(kind, 1, batch=4)
    frames = connector.frame(features[:, 0])
    shifted = FrameFeatures(frames.maps.roll(1, 0), frames.face.roll(1, 0))
    with torch.inference_mode():
        together = connector.join(shifted, frames, gates)
        for row in range(4):
            one = [FrameFeatures(f.maps[[row]], f.face[[row]]) for f in (shifted, frames)]
            torch.testing.assert_close(
                connector.join(*one, gates[row])[0], together[row], atol=1e-9, rtol=0
            )


def test_output_step_depends_on_its_frame_and_the_one_before(kind):
    connector = make_connector(kind)
    features, gate = make_window(kind, 6)
    changed = features.clone()
    changed[0, 2] += 1
    with torch.inference_mode():
        difference = (connector(changed, gate) - connector(features, gate))[0].abs().amax((1, 2))
    assert (difference[[2, 3]] > 1e-3).all()
    assert (difference[[0, 1, 4, 5]] == 0).all()


def test_windows_of_a_batch_do_not_touch(kind):
    connector = make_connector(kind)
    features, gate = make_window(kind, 3, batch=3)
    with torch.inference_mode():
        together = connector(features, gate)
        for row in range(3):
            alone = connector(features[[row]], gate[[row]])
            torch.testing.assert_close(alone[0], together[row], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("kind", "side", "tokens"), [("all_in_one_small", 14, 49), ("all_in_one", 27, 196)]
)
def test_published_token_counts(kind, side, tokens):
    connector = Connector(WIDTH_IN, WIDTH, *CONNECTOR_SHAPES[kind]).eval()
    with torch.inference_mode():
        out = connector(torch.randn(1, 2, side**2, WIDTH_IN), torch.full((1, 3), 1 / 3))
    assert out.shape == (1, 2, tokens, WIDTH)


def test_branches_as_two_plane_convolutions(kind):
    """The temporal convolution written out: a kernel of two steps is two spatial convolutions, and step 0 has one."""
    connector = make_connector(kind)
    features, gate = make_window(kind, 3)
    padding = CONNECTOR_SHAPES[kind][1]
    side = SIDES[kind]
    grid = features[0].transpose(1, 2).unflatten(2, (side, side))
    with torch.inference_mode():
        found = connector(features, gate)[0]
        wanted = torch.zeros_like(found)
        for index, branch in enumerate(("video", "body")):
            maps = getattr(connector, f"s1_{branch}")(grid)
            conv = getattr(connector, f"sampler_{branch}")[0]
            now = F.conv2d(maps, conv.weight[:, :, 1], conv.bias, stride=2, padding=padding)
            now[1:] += F.conv2d(maps[:-1], conv.weight[:, :, 0], stride=2, padding=padding)
            tokens = getattr(connector, f"s2_{branch}")(F.silu(now)).flatten(2).transpose(1, 2)
            wanted += gate[0, index] * getattr(connector, f"readout_{branch}")(tokens)
        face = connector.mlp_2xgelu_face(features[0]).transpose(1, 2).unflatten(2, (side, side))
        half = -(-side // 2)
        face = F.interpolate(face, size=(half, half), mode="bilinear", align_corners=False)
        wanted += gate[0, 2] * face.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def test_gate_mixes_linearly(kind):
    connector = make_connector(kind)
    features, gate = make_window(kind, 2)
    one_hot = torch.eye(3, dtype=torch.double)
    with torch.inference_mode():
        branches = torch.cat([connector(features, row[None]) for row in one_hot])
        mixed = connector(features, gate)[0]
    torch.testing.assert_close(
        torch.einsum("g,gtqh->tqh", gate[0], branches), mixed, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("select", [-1, -2, -4, 0, 1, 3])
def test_vision_tower_equals_hidden_states_of_siglip(select):
    config = SiglipVisionConfig(**Family().vision_config())
    siglip = SiglipVisionModel(config).eval()
    randomize(siglip, 3)
    layers = config.num_hidden_layers
    tower = VisionTower(config, select % (layers + 1)).eval()
    assert getattr(config, "vision_use_head", True), (
        "the checkpoint's own configuration was changed"
    )
    tower.vision_tower["vision_model"].load_state_dict(siglip.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = hidden_states_before_the_final_norm(siglip, pixels)[select]
        torch.testing.assert_close(tower(pixels), wanted, atol=1e-5, rtol=0)


def hidden_states_before_the_final_norm(siglip: SiglipVisionModel, pixels: torch.Tensor):
    """Embeddings and every layer's output, caught by hooks: versions differ in what the last hidden state is."""
    states: list[torch.Tensor] = []
    hooks = [
        siglip.encoder.layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0])),
        *(
            layer.register_forward_hook(lambda _m, _a, out: states.append(out))
            for layer in siglip.encoder.layers
        ),
    ]
    siglip(pixels)
    for hook in hooks:
        hook.remove()
    return states


def test_second_last_hidden_state_is_transformers_own():
    config = SiglipVisionConfig(**Family().vision_config())
    siglip = SiglipVisionModel(config).eval()
    randomize(siglip, 3)
    tower = VisionTower(config, config.num_hidden_layers - 1).eval()
    tower.vision_tower["vision_model"].load_state_dict(siglip.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = siglip(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(tower(pixels), wanted, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def whisper():
    config = WhisperConfig(**Family().audio_config())
    encoder = WhisperEncoder(config).eval()
    randomize(encoder, 4)
    tower = AudioTower(config).eval()
    tower.audio_tower["encoder"].load_state_dict(encoder.state_dict())
    return encoder, tower


def test_audio_tower_equals_whisper_on_the_full_context(whisper):
    encoder, tower = whisper
    mel = torch.randn(2, 128, 200)
    with torch.inference_mode():
        wanted = encoder(mel).last_hidden_state
        torch.testing.assert_close(tower(mel), wanted, atol=1e-5, rtol=0)


def test_audio_tower_takes_a_shorter_context(whisper):
    """Equal to an encoder that was built for the shorter context with the leading positions."""
    encoder, tower = whisper
    short = WhisperEncoder(WhisperConfig(**Family(audio_positions=30).audio_config())).eval()
    state = encoder.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:30]
    short.load_state_dict(state)
    mel = torch.randn(1, 128, 60)
    with torch.inference_mode():
        found = tower(mel)
        torch.testing.assert_close(found, short(mel).last_hidden_state, atol=1e-5, rtol=0)
    assert pool_audio(found).shape == (1, 10, 32)


@pytest.mark.parametrize("frames", [199, 202])
def test_audio_tower_refuses_odd_and_long_contexts(whisper, frames):
    with pytest.raises(InputError, match=rf"up to 200, found {frames}.*audio_context_s"):
        whisper[1](torch.zeros(1, 128, frames))


def test_pooling_averages_three_steps_and_drops_the_rest():
    steps = torch.arange(8.0).reshape(1, 8, 1)
    assert pool_audio(steps).flatten().tolist() == [1.0, 4.0]
