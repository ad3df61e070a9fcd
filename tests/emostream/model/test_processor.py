"""Inputs: what is refused and why, what batches look like, contexts shorter and longer than the audio."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from emostream import load_model
from emostream.errors import InputError
from emostream.model.prompt import DEFAULT_INSTRUCTION, prompt_pieces
from tests.checkpoint_factory import Family, make_checkpoint, random_audio, random_frames

TOKENS_PER_FRAME = 4  # 64/16 = 4 patches a side, 2 after the connector
AUDIO_TOKENS = 33  # 2 s: 100 steps, pooled by 3


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return load_model(make_checkpoint(tmp_path_factory.mktemp("processor") / "c", Family()))[1]


def test_one_clip(processor):
    inputs = processor(frames=random_frames(4), audio=random_audio(2))
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 64, 64)
    assert inputs["pixel_values_videos"].dtype == torch.float32
    assert inputs["input_features"].shape == (1, 128, 200)
    pieces = [
        processor.tokenizer(piece, add_special_tokens=False)["input_ids"]
        for piece in prompt_pieces(DEFAULT_INSTRUCTION, video=True, audio=True)
    ]
    visual, audio = ([processor.placeholder_id] * n for n in (4 * TOKENS_PER_FRAME, AUDIO_TOKENS))
    wanted = [*pieces[0], *visual, *pieces[1], *audio, *pieces[2]]
    assert inputs["input_ids"].tolist() == [wanted]
    assert inputs["visual_start"].tolist() == [len(pieces[0])]
    assert inputs["audio_start"].tolist() == [len(pieces[0]) + len(visual) + len(pieces[1])]
    assert inputs["attention_mask"].tolist() == [[1] * len(wanted)]


def test_absent_modality_leaves_no_line(processor):
    texts = {
        name: processor.tokenizer.decode(
            [i for i in inputs["input_ids"][0].tolist() if i != processor.placeholder_id]
        )
        for name, inputs in (
            ("video", processor(frames=random_frames(2))),
            ("audio", processor(audio=random_audio(1))),
        )
    }
    assert "<vi_start><vi_end>\n" in texts["video"]
    assert "<au_start>" not in texts["video"]
    assert "<au_start><au_end>\n" in texts["audio"]
    assert "<vi_start>" not in texts["audio"]


@pytest.mark.parametrize("frames", [1, 3, 9])
def test_any_number_of_frames(processor, frames):
    inputs = processor(frames=random_frames(frames))
    count = (inputs["input_ids"] == processor.placeholder_id).sum() - text_placeholders(processor)
    assert count == frames * TOKENS_PER_FRAME


def text_placeholders(processor) -> int:
    """How often the placeholder's id stands in the prompt's text: `<|im_start|>` does, in the fixture's tokenizer."""
    pieces = prompt_pieces(DEFAULT_INSTRUCTION, video=True, audio=False)
    ids = [processor.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
    return sum(part.count(processor.placeholder_id) for part in ids)


def test_pixels_are_squashed_bicubic_and_scaled(processor):
    frames = random_frames(2, size=(40, 96))
    found = processor.pixels(frames)
    for frame, pixels in zip(frames, found, strict=True):
        resized = Image.fromarray(frame).resize((64, 64), Image.Resampling.BICUBIC)
        wanted = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255 * 2 - 1
        torch.testing.assert_close(pixels, wanted, atol=1e-6, rtol=0)


def test_frames_three_pixels_wide_are_not_taken_for_channels(processor):
    frames = np.zeros((2, 3, 8, 3), np.uint8)
    frames[..., 0] = 255
    red = processor.pixels(frames)[0]
    assert red[0].min() == 1
    assert red[1:].max() == -1


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((4, 3, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 4), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((4, 0, 8, 3), np.uint8),
        "clip.mp4",
    ],
)
def test_unusable_frames(processor, frames):
    with pytest.raises(InputError, match=r"frames: wanted \(T, H, W, 3\) uint8 RGB.*found \("):
        processor(frames=frames)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(100, np.int16), r"wanted \(S,\) float32.*found \(100,\) int16"),
        (np.zeros(100), "float64"),
        (np.zeros((2, 100), np.float32), r"found \(2, 100\)"),
        (np.zeros(0, np.float32), "pass None for no audio"),
        (np.full(100, np.nan, np.float32), "magnitude of nan"),
        (np.full(100, -np.inf, np.float32), "magnitude of inf"),
        (np.full(100, 20_000, np.float32), r"wanted samples in \[-1, 1\].*20000.*Divide"),
    ],
)
def test_unusable_audio(processor, audio, message):
    with pytest.raises(InputError, match=message) as caught:
        processor(audio=audio)
    assert "\n" not in str(caught.value)


def test_audio_that_overshoots_a_little_passes(processor):
    assert torch.isfinite(processor(audio=1.5 * random_audio(1))["input_features"]).all()


def test_arrays_that_may_not_be_written(processor):
    """As decoders and memory maps hand them out."""
    frames, audio = random_frames(2), random_audio(1)
    wanted = processor(frames=frames, audio=audio)
    frames.flags.writeable = audio.flags.writeable = False
    found = processor(frames=frames, audio=audio)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_neither_modality(processor):
    with pytest.raises(InputError, match="neither frames nor audio given"):
        processor()
    with pytest.raises(InputError, match="neither frames nor audio given"):
        processor(frames=[random_frames(1), None])


def test_unknown_argument(processor):
    with pytest.raises(TypeError, match="images"):
        processor(frames=random_frames(1), images=1)


@pytest.mark.parametrize(
    ("frames", "audio", "instruction"),
    [
        ([random_frames(1)] * 2, [random_audio(1)] * 3, None),
        ([random_frames(1)] * 2, None, ["a", "b", "c"]),
        ([], None, None),
    ],
)
def test_lists_of_different_or_no_length(processor, frames, audio, instruction):
    with pytest.raises(InputError, match="wanted lists of one length, at least 1"):
        processor(frames=frames, audio=audio, instruction=instruction)


class TestAudioContext:
    def test_short_audio_is_padded_to_the_whole_context(self, processor):
        short = random_audio(0.7)
        padded = np.concatenate([short, np.zeros(32_000 - len(short), np.float32)])
        assert torch.equal(processor.mel(short), processor.mel(padded))
        assert processor.mel(short).shape == (128, 200)

    def test_long_audio_is_cut_with_a_warning(self, processor, caplog):
        audio = random_audio(2.5)
        with caplog.at_level(logging.WARNING, logger="emostream"):
            mel = processor.mel(audio)
        assert "2.50 s is cut to its last 2.00 s" in caplog.text
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="emostream"):
            assert torch.equal(mel, processor.mel(audio[-32_000:]))
        assert not caplog.records

    @pytest.mark.parametrize(
        ("context_s", "mel_frames"), [(2, 200), (1, 100), (0.5, 50), (0.06, 6)]
    )
    def test_shorter_context(self, processor, context_s, mel_frames):
        inputs = processor(audio=random_audio(min(context_s, 0.5)), audio_context_s=context_s)
        assert inputs["input_features"].shape == (1, 128, mel_frames)
        placeholders = (inputs["input_ids"] == processor.placeholder_id).sum()
        assert placeholders - text_placeholders(processor) == mel_frames // 2 // 3

    def test_context_that_is_no_whole_number_of_steps_is_rounded(self, processor):
        assert processor.mel(random_audio(0.5), 1.011).shape[1] == 102

    @pytest.mark.parametrize("context_s", [0, 0.02, -1, 2.1, 30, float("nan")])
    def test_impossible_context(self, processor, context_s):
        with pytest.raises(InputError, match=r"audio_context_s is .* takes 0.06 to 2 s"):
            processor(audio=random_audio(0.5), audio_context_s=context_s)

    def test_attribute_applies_where_a_call_names_none(self, processor):
        processor.audio_context_s = 1.0
        try:
            assert processor.mel(random_audio(0.5)).shape[1] == 100
            assert processor.mel(random_audio(0.5), 0.5).shape[1] == 50
        finally:
            processor.audio_context_s = None

    def test_one_context_a_batch(self, processor):
        rows = [processor(audio=random_audio(0.5), audio_context_s=s) for s in (1, 2)]
        with pytest.raises(InputError, match=r"one audio_context_s.*found \[1.0, 2.0\]"):
            processor.collate(rows)


class TestInstruction:
    def test_default_given_and_attribute(self, processor):
        clip = {"frames": random_frames(1)}
        default = processor(**clip)
        assert torch.equal(
            default["input_ids"], processor(**clip, instruction=DEFAULT_INSTRUCTION)["input_ids"]
        )
        asked = processor(**clip, instruction="Is this person happy?")
        assert not torch.equal(default["gate_input_ids"], asked["gate_input_ids"])
        processor.instruction = "Is this person happy?"
        try:
            found = processor(**clip)
        finally:
            processor.instruction = DEFAULT_INSTRUCTION
        assert all(torch.equal(found[key], asked[key]) for key in asked)

    def test_empty_is_not_the_default(self, processor):
        empty = processor(frames=random_frames(1), instruction="")
        default = processor(frames=random_frames(1))
        assert empty["input_ids"].shape[1] < default["input_ids"].shape[1]

    def test_gate_sees_the_instruction_alone(self, processor):
        inputs = processor(frames=random_frames(1), instruction="happy sad")
        wanted = processor.gate_tokenizer("happy sad")["input_ids"]
        assert inputs["gate_input_ids"].tolist() == [wanted]

    def test_longer_than_bert_takes_is_cut(self, processor):
        inputs = processor(frames=random_frames(1), instruction="happy " * 500)
        assert inputs["gate_input_ids"].shape[1] == 128

    def test_one_a_row(self, processor):
        questions = ["happy or sad?", "As an emotional recognition expert, which emotion?"]
        batch = processor(frames=[random_frames(2), random_frames(2)], instruction=questions)
        for row, question in enumerate(questions):
            alone = processor(frames=random_frames(2), instruction=question)
            width = alone["input_ids"].shape[1]
            assert torch.equal(batch["input_ids"][row, -width:], alone["input_ids"][0])
            width = alone["gate_input_ids"].shape[1]
            assert torch.equal(batch["gate_input_ids"][row, :width], alone["gate_input_ids"][0])
            assert batch["gate_attention_mask"][row].sum() == width

    def test_several_about_one_clip(self, processor):
        batch = processor(frames=random_frames(2), instruction=["happy?", "sad?"])
        assert batch["pixel_values_videos"].shape[0] == 2
        assert torch.equal(*batch["pixel_values_videos"])


def test_mixed_batch_is_padded_on_the_left(processor):
    clips = [
        (random_frames(4, 1), random_audio(2, 1)),
        (random_frames(2, 2), None),
        (None, random_audio(1, 3)),
    ]
    batch = processor(frames=[c[0] for c in clips], audio=[c[1] for c in clips])
    assert batch["num_video_frames"].tolist() == [4, 2, 0]
    assert batch["visual_start"].tolist()[2] == -1
    assert batch["audio_start"].tolist()[1] == -1
    assert (batch["pixel_values_videos"][2] == 0).all()
    assert (batch["pixel_values_videos"][1, 2:] == 0).all()
    for row, (frames, audio) in enumerate(clips):
        alone = processor(frames=frames, audio=audio)
        width = alone["input_ids"].shape[1]
        pad = batch["input_ids"].shape[1] - width
        assert torch.equal(batch["input_ids"][row, pad:], alone["input_ids"][0])
        assert batch["attention_mask"][row].tolist() == [0] * pad + [1] * width
        for start in ("visual_start", "audio_start"):
            if alone[start] >= 0:
                assert batch[start][row] == alone[start][0] + pad


def test_batch_without_a_modality_lacks_its_tensors(processor):
    batch = processor(frames=[random_frames(1), random_frames(2)])
    assert "input_features" not in batch
    assert batch["audio_start"].tolist() == [-1, -1]


def test_decodes_like_its_tokenizer(processor):
    ids = processor.tokenizer("happy")["input_ids"]
    assert processor.batch_decode([ids]) == ["happy"]
    assert processor.decode(ids) == "happy"
