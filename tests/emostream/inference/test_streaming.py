"""Incremental encoding equals encoding whole windows, whatever the windows do."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emostream.errors import InputError
from emostream.inference.cuda_graphs import GraphedFunction
from emostream.inference.encoders import TorchEncoders
from emostream.inference.streaming import MediaWindow, StreamingEncoder
from emostream.model.presets import from_preset

FRAMES = 4
RNG = np.random.default_rng(7)
PICTURES = RNG.integers(0, 256, (60, 24, 32, 3), dtype=np.uint8)
PCM = RNG.uniform(-0.5, 0.5, 60 * 8000).astype(np.float32)


@pytest.fixture(scope="module")
def tiny():
    model, processor = from_preset("tiny")
    gate = model.model.gate(*processor.gate_inputs(processor.instruction))[0].detach()
    return model, processor, gate


def whole(model, processor, gate, window):
    """Both modalities encoded from scratch, through the published order of operations."""
    with torch.inference_mode():
        visual, audio = model.model.embed_media(
            pixel_values_videos=processor.pixels(np.stack(window.frames))[None]
            if window.frames
            else None,
            input_features=None if window.audio is None else processor.mel(window.audio)[None],
            gate=gate[None],
        )
    return [None if part is None else part[0] for part in (visual, audio)]


def assert_equal(tokens, reference):
    for got, wanted in zip((tokens.visual, tokens.audio), reference, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


@st.composite
def sessions(draw):
    """Windows of two sources: hops of any size, repeated frames, lost modalities, restarts."""
    out, ends = [], {"a": 0, "b": 0}
    for _ in range(draw(st.integers(2, 6))):
        call = []
        for source in draw(st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")])):
            if draw(st.integers(0, 5)) == 0:
                ends[source] = 0
                call.append((source, None))
            ends[source] += draw(st.integers(1, FRAMES + 2))
            repeats = draw(st.lists(st.booleans(), min_size=FRAMES, max_size=FRAMES))
            modality = draw(st.sampled_from(["both", "both", "both", "video", "audio"]))
            call.append((source, (ends[source], repeats, modality)))
        out.append(call)
    return out


def build(source, end, repeats, modality):
    keys, start = [], end + 10
    for offset in range(FRAMES):
        keys.append(keys[-1] if repeats[offset] and keys else start + offset)
    video = modality != "audio"
    shift = 0 if source == "a" else 5
    return MediaWindow(
        source=source,
        keys=tuple(keys) if video else (),
        frames=tuple(PICTURES[(key + shift) % 60] for key in keys) if video else (),
        audio=PCM[start * 800 :][:16000] if modality != "video" else None,
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions())
def test_incremental_equals_whole_window(tiny, session):
    model, processor, gate = tiny
    encoder = StreamingEncoder(TorchEncoders(model), processor, gate)
    for call in session:
        windows = []
        for source, state in call:
            if state is None:
                encoder.forget(source)
            else:
                windows.append(build(source, *state))
        for window, tokens in zip(windows, encoder.encode(windows), strict=True):
            assert_equal(tokens, whole(model, processor, gate, window))


@pytest.mark.parametrize("hop", [1, 2, 3])
def test_a_hop_of_n_frames_costs_n_frames_and_n_plus_one_joins(tiny, hop):
    model, processor, gate = tiny
    encoder = StreamingEncoder(TorchEncoders(model), processor, gate)
    encoder.encode([build("a", 0, [False] * FRAMES, "both")])
    for step in range(1, 4):
        before = encoder.frames_encoded, encoder.pairs_joined
        encoder.encode([build("a", step * hop, [False] * FRAMES, "both")])
        assert encoder.frames_encoded - before[0] == hop
        assert encoder.pairs_joined - before[1] == hop + 1


def test_windows_of_one_source_in_one_call_share_their_frames(tiny):
    model, processor, gate = tiny
    encoder = StreamingEncoder(TorchEncoders(model), processor, gate)
    for first in (0, 3):  # the second call goes on where the first one ended
        windows = [build("a", first + hop, [False] * FRAMES, "both") for hop in range(3)]
        for window, tokens in zip(windows, encoder.encode(windows), strict=True):
            assert_equal(tokens, whole(model, processor, gate, window))
    assert encoder.frames_encoded == FRAMES + 5


def test_batches_padded_for_graphs_give_the_same(tiny):
    model, processor, gate = tiny
    encoders = TorchEncoders(model)
    for rows in (encoders._vision, encoders._join, encoders._audio):
        rows._graphed = GraphedFunction(rows._function, encoders.device)  # plain calls here
    encoder = StreamingEncoder(encoders, processor, gate)
    for hop in (0, 1, 3):  # 12, 3 and 6 frames; 16, 4 and 8 with padding
        windows = [
            build(source, 5 * i + hop, [False] * FRAMES, "both") for i, source in enumerate("abc")
        ]
        for window, tokens in zip(windows, encoder.encode(windows), strict=True):
            assert_equal(tokens, whole(model, processor, gate, window))


def test_a_repeated_frame_is_encoded_once(tiny):
    model, processor, gate = tiny
    encoder = StreamingEncoder(TorchEncoders(model), processor, gate)
    window = build("a", 0, [False, True, True, True], "video")
    assert_equal(encoder.encode([window])[0], whole(model, processor, gate, window))
    assert encoder.frames_encoded == 1


def test_same_keys_after_forget_are_encoded_anew(tiny):
    model, processor, gate = tiny
    encoder = StreamingEncoder(TorchEncoders(model), processor, gate)
    keys = (0, 1, 2, 3)
    first = MediaWindow(source="a", keys=keys, frames=tuple(PICTURES[:4]))
    second = MediaWindow(source="a", keys=keys, frames=tuple(PICTURES[10:14]))
    encoder.encode([first])
    encoder.forget("a")
    assert_equal(encoder.encode([second])[0], whole(model, processor, gate, second))


def test_unusable_windows_are_refused():
    with pytest.raises(InputError, match="neither frames nor audio"):
        MediaWindow(source="a")
    with pytest.raises(InputError, match="2 keys for 1 frames"):
        MediaWindow(source="a", keys=(1, 2), frames=(PICTURES[0],))
