"""Configuration of the audio-visual emotion model, in the published HumanOmni / R1-Omni key names."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import BertConfig, Qwen2Config, SiglipVisionConfig, WhisperConfig

from emostream.checkpoint.files import write_json
from emostream.checkpoint.hub import fetch
from emostream.checkpoint.parts import (
    AUDIO,
    BUILTIN_CONFIGS,
    GATE,
    MODEL_TYPE,
    PARTS,
    VISION,
    folder_name,
)
from emostream.checkpoint.resolve import FoundPart, find_parts
from emostream.errors import ConfigError
from emostream.model.prosody import BANDS, PROSODY_WIDTH

AnswerStyle = Literal["reasoned", "bare"]

#: `mm_projector_type` -> (residual blocks a stage, spatial padding of the temporal convolution).
CONNECTOR_SHAPES = {"all_in_one_small": (2, 0), "all_in_one": (4, 1)}

#: Width of the hidden layer of the instruction gate, fixed in every published checkpoint.
GATE_HIDDEN_SIZE = 3584

#: Keys of a published config.json that this class holds itself; all others are carried through untouched.
PUBLISHED_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "initializer_range",
    "attention_dropout",
    "tie_word_embeddings",
    "use_sliding_window",
    "max_window_layers",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "mm_vision_tower",
    "mm_audio_tower",
    "mm_projector_type",
    "mm_audio_projector_type",
    "mm_hidden_size",
    "audio_hidden_size",
    "mm_vision_select_layer",
    "mm_vision_select_feature",
    "mm_use_x_start_end",
    "num_frames",
    "image_aspect_ratio",
)


def audio_width(config: WhisperConfig) -> int:
    """D, what an audio tower gives of a step: Whisper's width, with `prosody` its numbers more."""
    return int(config.d_model) + (PROSODY_WIDTH if getattr(config, "prosody", False) else 0)


class EmostreamConfig(Qwen2Config):
    r"""Qwen2's configuration plus the `mm_*` keys of the published layout and the three towers' own configurations.

    Attributes:
        mm_vision_tower: Hub id or folder of the SigLIP tower; its last component names the folder beside config.json.
        mm_audio_tower: Likewise for the Whisper encoder.
        gate_tower: Likewise for the BERT of the instruction gate (not a published key; upstream fixes the name).
        mm_projector_type: `all_in_one_small` (0.5B) or `all_in_one` (7B).
        mm_vision_select_layer: Index into SigLIP's hidden states; -2 skips the last encoder layer.
        num_frames: Frames of a clip or window, T.
        answer_style: `reasoned` for checkpoints that answer `<think>…</think>\n<answer>…</answer>`, `bare` for those
            that answer with the label alone.
        frame_crop: What of a frame the model is shown (not a published key): `whole`, or the `face` of one person.
        crop_margin: Side of that face's square, in sides of its box (not a published key).
        voice_heads: Numbers of `towers.VoiceHeads` beside every audio token (not a published key); 0 for none.
        label_temperature: By which the log-probabilities of labels are divided before they are scores (not a published
            key); fitted on people that no training saw.
        vision_config, audio_config, gate_config: Configurations of SigLIP, Whisper and BERT. Where SigLIP's has
            `stem_widths` (not a published key), its patch embedding is a `towers.ConvStem` of these widths, with
            `stem_blocks` residual blocks behind each of its convolutions. Where Whisper's has `standardised` or
            `prosody`, see `towers.AudioTower`.
        published: The config.json as it was read, so that saving writes back keys that this class does not know.
    """

    model_type = MODEL_TYPE

    mm_vision_tower: str = VISION.default_name
    mm_audio_tower: str = AUDIO.default_name
    gate_tower: str = GATE.default_name
    mm_projector_type: str = "all_in_one_small"
    mm_audio_projector_type: str = "mlp2x_gelu"
    mm_hidden_size: int = 768
    audio_hidden_size: int = 1280
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    mm_use_x_start_end: bool = True
    num_frames: int = 8
    image_aspect_ratio: str = "pad"
    answer_style: str = "reasoned"
    frame_crop: str = "whole"
    crop_margin: float = 1.1
    label_temperature: float = 1.0
    voice_heads: int = 0
    vision_config: Any = None
    audio_config: Any = None
    gate_config: Any = None
    published: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _as_config(
            SiglipVisionConfig, self.vision_config, "siglip-base-patch16-224"
        )
        self.audio_config = _as_config(WhisperConfig, self.audio_config, "whisper-large-v3")
        self.gate_config = _as_config(BertConfig, self.gate_config, "bert-base-uncased")
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        for key, known in (
            ("mm_projector_type", tuple(CONNECTOR_SHAPES)),
            ("mm_audio_projector_type", ("mlp2x_gelu",)),
            ("mm_vision_select_feature", ("patch",)),
            ("answer_style", ("reasoned", "bare")),
            ("frame_crop", ("whole", "face")),
        ):
            if getattr(self, key) not in known:
                self._refuse(
                    f"{key} is {getattr(self, key)!r}, wanted {' or '.join(known)}",
                    "The checkpoint is of another family.",
                )
        if not 0.5 <= self.crop_margin <= 4:
            self._refuse(
                f"crop_margin is {self.crop_margin}, wanted 0.5 to 4 sides of a face's box",
                "Correct the value.",
            )
        if not 0.05 <= self.label_temperature <= 20:
            self._refuse(
                f"label_temperature is {self.label_temperature}, wanted 0.05 to 20",
                "Correct the value.",
            )
        prosody, mel = getattr(self.audio_config, "prosody", False), self.audio_config.num_mel_bins
        if (prosody or self.voice_heads) and not self.standardises_voices:
            self._refuse(
                f"prosody or voice_heads is given, but the tower {self.mm_audio_tower} is not standardised",
                "Leave them out, or set standardised in the tower's config.json.",
            )
        if prosody and mel % BANDS:
            self._refuse(
                f"prosody is given, but {self.mm_audio_tower} has {mel} mel bins, wanted a multiple of {BANDS}",
                "Leave it out.",
            )
        for key, width, owner in (
            ("mm_hidden_size", self.vision_config.hidden_size, self.mm_vision_tower),
            ("audio_hidden_size", audio_width(self.audio_config), self.mm_audio_tower),
        ):
            if getattr(self, key) != width:
                self._refuse(
                    f"{key} is {getattr(self, key)} but the tower {owner} is {width} wide",
                    "Point the checkpoint at the tower that it was trained with.",
                )
        layers = self.vision_config.num_hidden_layers
        if not -layers - 1 <= self.mm_vision_select_layer <= layers:
            self._refuse(
                f"mm_vision_select_layer is {self.mm_vision_select_layer} but the tower {self.mm_vision_tower} has "
                f"{layers} layers",
                "Point the checkpoint at the tower that it was trained with.",
            )
        if widths := getattr(self.vision_config, "stem_widths", None):
            patch = 2 ** (len(widths) + 1)
            if patch != self.vision_config.patch_size:
                self._refuse(
                    f"stem_widths of {self.mm_vision_tower} makes patches of {patch} pixels, but its patch_size "
                    f"is {self.vision_config.patch_size}",
                    "Give one width fewer than patch_size has halvings.",
                )
            blocks = getattr(self.vision_config, "stem_blocks", ())
            if blocks and len(blocks) != len(widths) + 1:
                self._refuse(
                    f"stem_blocks of {self.mm_vision_tower} names {len(blocks)} convolutions, its stem has "
                    f"{len(widths) + 1}",
                    "Give a number for each width of stem_widths, and one for the tower's own.",
                )
        if self.tokens_per_side != (self.patches_per_side + 1) // 2:
            parity = "odd" if CONNECTOR_SHAPES[self.mm_projector_type][1] else "even"
            self._refuse(
                f"{self.mm_projector_type} wants an {parity} number of patches a side, found {self.patches_per_side}",
                "Change the tower's image_size or the connector.",
            )
        if len({folder_name(getattr(self, part.config_key)) for part in PARTS}) < len(PARTS):
            self._refuse(
                "two towers have the same name, so that their files would fall into one folder",
                "Rename one of their folders.",
            )

    def _refuse(self, found: str, remedy: str) -> None:
        where = Path(self.name_or_path or "") / "config.json"
        raise ConfigError(f"{where}: {found}. {remedy}")

    @property
    def vision_layers(self) -> int:
        """Number of SigLIP encoder layers that run to reach `mm_vision_select_layer`."""
        layers = self.vision_config.num_hidden_layers
        # hidden_states has layers + 1 entries: the embeddings, then one for each layer.
        return self.mm_vision_select_layer % (layers + 1)

    @property
    def standardises_voices(self) -> bool:
        """Whether the audio tower hears everybody, or one person, as they differ from how they usually sound."""
        return bool(getattr(self.audio_config, "standardised", False))

    @property
    def patches_per_side(self) -> int:
        """P, patches along a side of a frame."""
        return int(self.vision_config.image_size // self.vision_config.patch_size)

    @property
    def tokens_per_side(self) -> int:
        """Visual tokens along a side of a frame after the connector: 7 for 14 patches."""
        padding = CONNECTOR_SHAPES[self.mm_projector_type][1]
        return (self.patches_per_side + 2 * padding - 2) // 2 + 1

    @property
    def visual_tokens_per_frame(self) -> int:
        """Visual tokens of one frame: 49 for 14 patches a side."""
        return self.tokens_per_side**2

    def audio_tokens(self, mel_frames: int) -> int:
        """Audio tokens for `mel_frames` mel frames of 10 ms: 500 for the padded 30 s."""
        return mel_frames // 2 // 3

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As transformers', and tells `from_dict` where the file was, as `AutoConfig` does too."""
        path = str(pretrained_model_name_or_path)
        config_dict, kwargs = super().get_config_dict(path, **kwargs)
        return config_dict, {"name_or_path": path, **kwargs}

    @classmethod
    def from_dict(
        cls,
        config_dict: dict[str, Any],
        *,
        parts: Sequence[FoundPart] | None = None,
        **kwargs: Any,
    ) -> Any:
        """From a published config.json, whose towers are described in folders of their own, or from `to_dict`.

        Args:
            config_dict: The published keys, or all of them.
            parts: The towers of the checkpoint, if they have been found already.
            **kwargs: As transformers'; `name_or_path` says which folder or repository the file came from.
        """
        if not all(part.sub_config in config_dict for part in PARTS):
            # transformers 5.17 notes the hub's commit among the file's own keys.
            published = {k: v for k, v in config_dict.items() if k != "_commit_hash"}
            if parts is None:
                parts = find_parts(published, _local_folder(kwargs.get("name_or_path", "")))
            config_dict = {
                **config_dict,
                **{found.part.sub_config: found.config() for found in parts},
                "published": copy.deepcopy(published),
            }
        try:
            return super().from_dict(config_dict, **kwargs)
        except StrictDataclassError as error:
            found = " ".join(str(error).split())
            raise ConfigError(
                f"{kwargs.get('name_or_path', '')}: config.json of the model or of a tower: {found}. Correct the value."
            ) from error

    def save_pretrained(
        self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write config.json in the published form, and each tower's into its folder beside it."""
        for part in PARTS:
            folder = Path(save_directory) / folder_name(getattr(self, part.config_key))
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", getattr(self, part.sub_config).to_dict())
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def to_json_string(self, use_diff: bool = True) -> str:
        """config.json in the published form."""
        return json.dumps(self.to_published_dict(), indent=2, sort_keys=True) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """As transformers' configurations, without the raw config.json that was read."""
        out: dict[str, Any] = super().to_dict()
        out.pop("published", None)
        return out

    def to_published_dict(self) -> dict[str, Any]:
        """config.json in the published key names: what was read, with this object's values laid over it.

        transformers 5 renamed `rope_theta` and `torch_dtype`; upstream code reads the old names, so they are written.
        """
        out: dict[str, Any] = copy.deepcopy(self.published or {})
        out["architectures"] = ["HumanOmniQwen2ForCausalLM"]
        out["model_type"] = self.model_type
        out.update({key: getattr(self, key) for key in PUBLISHED_KEYS})
        out["rope_theta"] = self.rope_parameters["rope_theta"]
        if self.rope_parameters["rope_type"] != "default" and "rope_parameters" not in out:
            out["rope_scaling"] = dict(self.rope_parameters)
        if self.dtype is not None:
            out["torch_dtype"] = str(self.dtype).removeprefix("torch.")
        for key in (
            "answer_style",
            "frame_crop",
            "crop_margin",
            "label_temperature",
            "voice_heads",
            "gate_tower",
        ):
            if key in out or getattr(self, key) != getattr(type(self), key):
                out[key] = getattr(self, key)
        return out


def _as_config(cls: type, value: Any, default: str) -> Any:
    value = BUILTIN_CONFIGS[default] if value is None else value
    return cls(**value) if isinstance(value, dict) else value


def _local_folder(name: str) -> Path:
    """The folder of a config.json that transformers was given as a folder, a file or a hub id."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.parent
    return path if path.is_dir() else fetch(name, ["*.json"])
