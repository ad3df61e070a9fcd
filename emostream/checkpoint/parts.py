"""The towers of a checkpoint, and how their upstream repositories name things."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emostream.errors import ConfigError

#: What config.json of every checkpoint of this family says.
MODEL_TYPE = "HumanOmni_qwen2"

#: Configurations of the towers that published checkpoints name, for weights stored inside without a folder.
BUILTIN_CONFIGS: dict[str, dict[str, Any]] = {
    "siglip-base-patch16-224": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "whisper-large-v3": {
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "decoder_layers": 32,
        "decoder_attention_heads": 20,
        "decoder_ffn_dim": 5120,
        "num_mel_bins": 128,
        "max_source_positions": 1500,
        "vocab_size": 51866,
        "pad_token_id": 50256,
        "bos_token_id": 50257,
        "eos_token_id": 50257,
        "decoder_start_token_id": 50258,
    },
    "bert-base-uncased": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A tower that may live outside the checkpoint.

    Attributes:
        name: `vision`, `audio` or `gate`, as in `load_model(towers=…)`.
        config_key: Key of config.json that says where it is.
        default_name: Where it is if config.json does not say.
        sub_config: Attribute of `EmostreamConfig` that holds its configuration.
        prefix: Of its tensors inside a checkpoint.
        rename: Name in its own repository -> name inside a checkpoint, or None for tensors that are not kept.
        nested: Key under which a larger model's config.json holds the tower's, if it is one.
    """

    name: str
    config_key: str
    default_name: str
    sub_config: str
    prefix: str
    rename: Callable[[str], str | None]
    nested: str | None = None

    def name_in(self, published: Mapping[str, Any]) -> str:
        """What a config.json calls the tower: a hub id or a folder."""
        name: str = published.get(self.config_key, self.default_name)
        return name

    def select_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """The tower's own configuration out of its repository's config.json."""
        return dict(config.get(self.nested, config)) if self.nested else dict(config)


def _rename_siglip(key: str) -> str | None:
    """Vision tensors of `SiglipModel` and `SiglipVisionModel`, of transformers 4 and 5; the text tower is left."""
    if key.startswith(("text_model.", "logit_")):
        return None
    return "model.vision_tower.vision_tower.vision_model." + key.removeprefix("vision_model.")


def _rename_whisper(key: str) -> str | None:
    """Encoder tensors of any Whisper class, the classification head that published checkpoints carry, ours."""
    key = key.removeprefix("model.")
    if key.startswith(("encoder.", "projector.", "classifier.", "baseline.", "prosody.")):
        return "model.audio_tower.audio_tower." + key
    return None


def _rename_bert(key: str) -> str | None:
    """`BertModel` tensors out of any BERT class, with the old names of layer norm parameters."""
    key = key.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
    if key.startswith("cls.") or key.endswith("position_ids"):
        return None
    return "model.bert_model." + key


VISION, AUDIO, GATE = PARTS = (
    Part(
        name="vision",
        config_key="mm_vision_tower",
        default_name="google/siglip-base-patch16-224",
        sub_config="vision_config",
        prefix="model.vision_tower.",
        rename=_rename_siglip,
        nested="vision_config",
    ),
    Part(
        name="audio",
        config_key="mm_audio_tower",
        default_name="openai/whisper-large-v3",
        sub_config="audio_config",
        prefix="model.audio_tower.",
        rename=_rename_whisper,
    ),
    Part(
        name="gate",
        config_key="gate_tower",
        default_name="google-bert/bert-base-uncased",
        sub_config="gate_config",
        prefix="model.bert_model.",
        rename=_rename_bert,
    ),
)


def folder_name(name: str) -> str:
    """Last component of a tower's hub id or folder (of any system): its folder's name beside config.json.

    Raises:
        ConfigError: There is none.
    """
    base = re.split(r"[\\/]", name.rstrip("\\/"))[-1] if isinstance(name, str) else ""
    if base in ("", ".", ".."):
        raise ConfigError(
            f"config.json: a tower is named {name!r}; wanted a hub id or a folder. Name the tower's folder."
        )
    return base
