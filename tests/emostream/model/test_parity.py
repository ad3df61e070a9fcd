"""What the reference implementation computed on a random checkpoint of the published layout, to the last token."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from emostream import load_model
from emostream.model.prompt import DEFAULT_INSTRUCTION
from tests.checkpoint_factory import PARITY, TOWER_PREFIXES

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def expected():
    with np.load(PARITY / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """TF32, the default of convolutions on a GPU, keeps 10 bits of a product: off."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture(scope="module")
def loaded(device):
    return load_model(PARITY, device)


@pytest.fixture(scope="module")
def inputs(loaded, expected):
    return prepared(loaded, frames=expected["frames"], audio=expected["audio"])


@pytest.fixture(scope="module")
def media(loaded, inputs):
    keys = ("pixel_values_videos", "input_features", "gate_input_ids", "gate_attention_mask")
    with torch.inference_mode():
        return loaded[0].model.embed_media(**{key: inputs[key] for key in keys})


def prepared(loaded, **media):
    """The processor's tensors, where the model is."""
    return loaded[1](**media).to(loaded[0].device)


def close(found: torch.Tensor, wanted: np.ndarray, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(
        found.float().cpu(), torch.from_numpy(wanted).float(), atol=tolerance, rtol=0
    )


def published_ids(inputs, config) -> list[int]:
    """Prompt ids with each run of media placeholders collapsed to the reference's -201 (video) and -202 (audio)."""
    ids = inputs["input_ids"][0].tolist()
    runs = []
    if (start := int(inputs["visual_start"])) >= 0:
        frames = inputs["pixel_values_videos"].shape[1]
        runs.append((start, frames * config.visual_tokens_per_frame, -201))
    if (start := int(inputs["audio_start"])) >= 0:
        runs.append((start, config.audio_tokens(inputs["input_features"].shape[2]), -202))
    for start, count, placeholder in sorted(runs, reverse=True):
        assert len(set(ids[start : start + count])) == 1
        ids[start : start + count] = [placeholder]
    return ids


def test_default_instruction_is_the_published_one():
    recorded = json.loads((PARITY / "expected.json").read_text(encoding="utf-8"))
    assert recorded["instruction"] == DEFAULT_INSTRUCTION


def test_tensor_names(loaded):
    """The reference lists its own modules (the head, tied, included); the file holds SigLIP and Whisper besides."""
    recorded = json.loads((PARITY / "expected.json").read_text(encoding="utf-8"))
    model = loaded[0]
    ours = {*model.state_dict(), *model.unused_tensors}
    towers = ("model.vision_tower.", "model.audio_tower.")
    assert {name for name in ours if not name.startswith(towers)} == set(
        recorded["state_dict_keys"]
    )
    with safe_open(PARITY / "model.safetensors", "pt") as handle:
        assert ours - {"lm_head.weight"} == set(handle.keys())


def test_pixels(inputs, expected):
    close(inputs["pixel_values_videos"][0, :2], expected["pixel_values"], 5e-4)


def test_mel(inputs, expected):
    close(inputs["input_features"][:, :, :400], expected["mel"])


def test_vision_features(loaded, inputs, expected):
    with torch.inference_mode():
        features = loaded[0].model.vision(inputs["pixel_values_videos"])
    close(features[0, :2], expected["vision_features"])


def test_audio_features(loaded, inputs, expected):
    with torch.inference_mode():
        features = loaded[0].model.audio_tower(inputs["input_features"])
    close(features[0, :50], expected["audio_features"])


def test_gate(loaded, inputs, expected):
    with torch.inference_mode():
        gate = loaded[0].model.gate(inputs["gate_input_ids"], inputs["gate_attention_mask"])
    close(gate[0], expected["gate"])


def test_video_and_audio_tokens(media, expected):
    video, audio = media
    close(video[0], expected["video_tokens"])
    close(audio[0], expected["audio_tokens"])


def test_prompt_ids(loaded, inputs, expected):
    assert published_ids(inputs, loaded[0].config) == expected["input_ids"][0].tolist()


def test_logits(loaded, inputs, expected):
    with torch.inference_mode():
        logits = loaded[0](**inputs).logits[0]
    close(logits[-1], expected["last_logits"])
    close(logits[::37], expected["logits_sample"])


def test_greedy_tokens(loaded, inputs, expected):
    out = loaded[0].generate(**inputs, do_sample=False, max_new_tokens=24)
    prompt = inputs["input_ids"].shape[1]
    assert torch.equal(out[:, :prompt], inputs["input_ids"])
    assert out[:, prompt:].tolist() == expected["generated"].tolist()


def test_video_only(loaded, expected):
    model, _ = loaded
    inputs = prepared(loaded, frames=expected["frames"])
    assert published_ids(inputs, model.config) == expected["video_only_ids"][0].tolist()
    with torch.inference_mode():
        close(model(**inputs).logits[0, -1], expected["video_only_last_logits"])


def test_towers_in_folders_of_their_own(tmp_path, device, inputs, expected):
    folder = tmp_path / "outside"
    shutil.copytree(PARITY, folder)
    tensors = load_file(PARITY / "model.safetensors")
    prefixes = tuple(TOWER_PREFIXES.values())
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(folder, device)
    with torch.inference_mode():
        close(model(**inputs).logits[0, -1], expected["last_logits"])


def test_front_ends_without_preprocessor_files(tmp_path, loaded, inputs, expected):
    folder = tmp_path / "bare"
    shutil.copytree(PARITY, folder)
    for file in folder.glob("*/preprocessor_config.json"):
        file.unlink()
    _, processor = load_model(folder)
    found = processor(frames=expected["frames"], audio=expected["audio"])
    for key, value in inputs.items():
        assert torch.equal(found[key], value.cpu()), key


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precisions_agree_with_full(device, inputs, expected, dtype, tolerance):
    """Root mean square error of the logits relative to theirs: bf16 keeps 8 bits, fp16 11."""
    model, _ = load_model(PARITY, device, dtype)
    wanted = torch.from_numpy(expected["logits_sample"])
    with torch.inference_mode():
        found = model(**inputs).logits[0, ::37].float().cpu()
    assert (found - wanted).square().mean() < tolerance**2 * wanted.square().mean()
