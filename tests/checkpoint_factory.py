"""Small random checkpoints of the published family, written without the code under test.

The towers are transformers' own models with random weights; their tensors go into the checkpoint under published names,
taken from the live modules, or into repositories of their own as upstream publishes them.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    SiglipConfig,
    SiglipModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM

PARITY = Path(__file__).parent / "fixtures" / "parity"

VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
AUDIO_PREFIX = "model.audio_tower.audio_tower."
GATE_PREFIX = "model.bert_model."
TOWER_PREFIXES = {"vision": VISION_PREFIX, "audio": AUDIO_PREFIX, "gate": GATE_PREFIX}
TOWER_FOLDERS = {
    "vision": "siglip-small",
    "audio": "whisper-small-random",
    "gate": "bert-base-uncased",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """What varies between checkpoints of the family; sizes are small enough for milliseconds."""

    connector: str = "all_in_one_small"
    image_size: int = 64
    patch_size: int = 16
    vision_layers: int = 3
    select_layer: int = -2
    audio_layers: int = 2
    audio_positions: int = 100  # 2 s
    layers: int = 2
    tied: bool = True
    num_frames: int = 4
    vision_width: int = 32
    audio_width: int = 32
    width: int = 64
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def vision_config(self) -> dict[str, Any]:
        return {
            "hidden_size": self.vision_width,
            "intermediate_size": 48,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": 4,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
        }

    def audio_config(self) -> dict[str, Any]:
        return {
            "d_model": self.audio_width,
            "encoder_layers": self.audio_layers,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_layers": 1,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 48,
            "num_mel_bins": 128,
            "max_source_positions": self.audio_positions,
            "vocab_size": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        }

    def gate_config(self) -> dict[str, Any]:
        return {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 91,
            "max_position_embeddings": 128,
        }

    def published_config(self) -> dict[str, Any]:
        """config.json in the published key names."""
        return {
            "architectures": ["HumanOmniQwen2ForCausalLM"],
            "model_type": "HumanOmni_qwen2",
            "torch_dtype": "float32",
            "hidden_size": self.width,
            "intermediate_size": 96,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 512,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 465,
            "eos_token_id": 464,
            "pad_token_id": 465,
            "mm_vision_tower": TOWER_FOLDERS["vision"],
            "mm_audio_tower": TOWER_FOLDERS["audio"],
            "mm_projector_type": self.connector,
            "mm_audio_projector_type": "mlp2x_gelu",
            "mm_hidden_size": self.vision_width,
            "audio_hidden_size": self.audio_width,
            "mm_vision_select_layer": self.select_layer,
            "mm_vision_select_feature": "patch",
            "mm_use_x_start_end": True,
            "num_frames": self.num_frames,
            "image_aspect_ratio": "pad",
            **self.extra,
        }


@dataclass(frozen=True)
class Towers:
    """transformers' own models, as upstream publishes them."""

    siglip: SiglipModel
    whisper: WhisperForConditionalGeneration
    bert: BertForMaskedLM
    pooler: dict[str, Tensor]  # BertForMaskedLM has none; google-bert's repository does

    def published(self) -> dict[str, Tensor]:
        """The towers' tensors under their names inside a checkpoint."""
        return {
            **_prefixed(VISION_PREFIX, self.siglip.vision_model.state_dict()),
            **_prefixed(f"{AUDIO_PREFIX}encoder.", self.whisper.model.encoder.state_dict()),
            **_prefixed(GATE_PREFIX, {**self.bert.bert.state_dict(), **self.pooler}),
        }


def make_towers(family: Family) -> Towers:
    siglip = SiglipModel(
        SiglipConfig(
            vision_config=family.vision_config(),
            text_config={
                "hidden_size": family.vision_width,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "vocab_size": 40,
                "projection_size": family.vision_width,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            },
        )
    )
    whisper = WhisperForConditionalGeneration(WhisperConfig(**family.audio_config()))
    bert = BertForMaskedLM(BertConfig(**family.gate_config()))
    for index, model in enumerate((siglip, whisper, bert)):
        randomize(model, family.seed * 10 + index)
    pooler = BertModel(BertConfig(**family.gate_config())).pooler
    randomize(pooler, family.seed * 10 + 3)
    return Towers(siglip, whisper, bert, _prefixed("pooler.", pooler.state_dict()))


def make_checkpoint(
    folder: Path,
    family: Family | None = None,
    *,
    outside: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A checkpoint folder with tower configurations beside it.

    Args:
        folder: Where; made.
        family: Its shape.
        outside: Parts whose weights are left out; see `write_tower_repository`.
        dtype: Of the stored tensors.
    """
    family = family or Family()
    towers = make_towers(family)
    tensors = {**make_trunk(family), **towers.published()}
    tensors |= {  # as published: a classification head that nothing reads
        f"{AUDIO_PREFIX}projector.weight": torch.randn(8, family.audio_width),
        f"{AUDIO_PREFIX}classifier.bias": torch.randn(2),
    }
    left_out = tuple(TOWER_PREFIXES[part] for part in outside)
    write_checkpoint(
        folder,
        family,
        {name: t for name, t in tensors.items() if not (left_out and name.startswith(left_out))},
        dtype=dtype,
    )
    for part, config, kind in (
        ("vision", family.vision_config(), "siglip_vision_model"),
        ("audio", family.audio_config(), "whisper"),
        ("gate", family.gate_config(), "bert"),
    ):
        if part not in outside:
            write_json(folder / TOWER_FOLDERS[part] / "config.json", {"model_type": kind, **config})
    copy_gate_tokenizer(folder / TOWER_FOLDERS["gate"])
    return folder


def make_trunk(family: Family) -> dict[str, Tensor]:
    """Language model, connector, projector and gate with random weights."""
    subs = {
        "vision_config": family.vision_config(),
        "audio_config": family.audio_config(),
        "gate_config": family.gate_config(),
    }
    model = EmostreamForCausalLM(EmostreamConfig(**family.published_config(), **subs))
    randomize(model, family.seed * 10 + 4)
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(tuple(TOWER_PREFIXES.values()))
    }
    if family.tied:
        tensors.pop("lm_head.weight")
    return tensors


def write_checkpoint(
    folder: Path,
    family: Family,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", family.published_config())
    write_tensors(folder / "model.safetensors", tensors, dtype=dtype)
    for name in (
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ):
        shutil.copyfile(PARITY / name, folder / name)


def copy_gate_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(PARITY / "bert-base-uncased" / name, folder / name)


def write_tower_repository(folder: Path, part: str, towers: Towers, *, spelling: str) -> None:
    """A tower in its full upstream form.

    Args:
        folder: Where to.
        part: `vision`, `audio` or `gate`.
        towers: The models.
        spelling: `5` for what the installed transformers writes, `4` for the names that version 4 wrote.
    """
    model = {"vision": towers.siglip, "audio": towers.whisper, "gate": towers.bert}[part]
    model.save_pretrained(folder)
    if part == "gate":
        copy_gate_tokenizer(folder)
    if spelling == "5":
        return
    if part == "vision":
        tensors = {
            **_prefixed("vision_model.", towers.siglip.vision_model.state_dict()),
            **_prefixed("text_model.", towers.siglip.text_model.state_dict()),
            "logit_scale": towers.siglip.logit_scale,
            "logit_bias": towers.siglip.logit_bias,
        }
    elif part == "audio":
        tensors = _prefixed("model.", towers.whisper.model.state_dict())
    else:  # google-bert's own file, older still
        old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
        tensors = _prefixed("bert.", {**towers.bert.bert.state_dict(), **towers.pooler})
        tensors["bert.embeddings.position_ids"] = torch.arange(128)[None]
        tensors["cls.seq_relationship.weight"] = torch.randn(2, 32)
        for name in list(tensors):
            for new, before in old.items():
                if name.endswith(new):
                    tensors[name.removesuffix(new) + before] = tensors.pop(name)
    write_tensors(folder / "model.safetensors", tensors)


def write_tensors(
    file: Path, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None
) -> None:
    save_file(
        {
            name: tensor.detach().to(dtype if tensor.is_floating_point() else None).clone()
            for name, tensor in tensors.items()
        },
        file,
        metadata={"format": "pt"},
    )


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2), encoding="utf-8")


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's config.json."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, **changes})


def random_frames(count: int, seed: int = 0, size: tuple[int, int] = (48, 80)) -> np.ndarray:
    """(count, *size, 3) uint8 RGB: blocks rather than noise, which resizing would average away."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def random_audio(seconds: float, seed: int = 0) -> np.ndarray:
    """(S,) float32 at 16 kHz: a gliding tone in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    tone = np.sin(2 * np.pi * (200 + 100 * rng.random() + 80 * t) * t)
    return (0.3 * tone + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def randomize(model: nn.Module, seed: int) -> None:
    """Weights that keep the variance of what passes through, so that every part of a model matters to its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(1 + 0.1 * noise)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
