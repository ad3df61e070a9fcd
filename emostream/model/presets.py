"""Model sizes that this project knows by name, with random weights.

`0.5b` and `7b` have the published checkpoints' shapes, for measuring and for testing without a download. `tiny` and
`small` are the sizes that this repository trains itself. Pretrained weights come from `load_model`.
"""

import json
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, Qwen2Tokenizer, WhisperFeatureExtractor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from emostream.checkpoint.parts import BUILTIN_CONFIGS
from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from emostream.model.prompt import DEFAULT_INSTRUCTION, prompt_pieces
from emostream.sampling import SAMPLE_RATE_HZ

_TINY: dict[str, Any] = {
    "mm_vision_tower": "tiny-siglip",
    "mm_audio_tower": "tiny-whisper",
    "gate_tower": "tiny-bert",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "mm_hidden_size": 160,
    "audio_hidden_size": 144,
    # Every layer of a small tower is worth running; the published -2 would train one for nothing.
    "mm_vision_select_layer": -1,
    "vision_config": {
        "hidden_size": 160,
        "intermediate_size": 320,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 128,
        "patch_size": 32,
        "stem_widths": [32, 64, 96, 128],
    },
    "audio_config": {
        "d_model": 144,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 384,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 384,
        "num_mel_bins": 128,
        "max_source_positions": 200,  # 4 s
        "vocab_size": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
        "dropout": 0.0,
    },
    "gate_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    },
}

#: Faces of 64 pixels through residual convolutions to 4x4 tokens: on people, well ahead of a transformer that is as
#: fast. The crop is that of the pictures which the tower is trained on (`people.crop`).
_SMALL: dict[str, Any] = {
    **_TINY,
    "mm_vision_tower": "small-siglip",
    "mm_audio_tower": "small-whisper",
    "gate_tower": "small-bert",
    "frame_crop": "face",
    "crop_margin": 1.1,
    "mm_hidden_size": 256,
    "audio_hidden_size": 169,
    "voice_heads": 32,
    "vision_config": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 0,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
        "stem_widths": [32, 64, 128],
        "stem_blocks": [0, 1, 2, 1],
    },
    "audio_config": {
        **_TINY["audio_config"],
        "encoder_layers": 4,
        "standardised": True,
        "prosody": True,
    },
}

_HALF_B: dict[str, Any] = {
    "mm_vision_tower": "google/siglip-base-patch16-224",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "vision_config": BUILTIN_CONFIGS["siglip-base-patch16-224"],
}

_SEVEN_B: dict[str, Any] = {
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_projector_type": "all_in_one",
    "mm_hidden_size": 1152,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "vision_config": BUILTIN_CONFIGS["siglip-so400m-patch14-384"],
}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    "0.5b": _HALF_B,
    "7b": _SEVEN_B,
    "small": _SMALL,
}

#: Those that this repository trains, with vocabularies of their own.
OWN_SIZES = ("tiny", "small")

_QWEN2: dict[str, Any] = {
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 32768,
}

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>")

#: What every tokenizer of this project must spell cheaply, whatever else it was trained on.
BASE_TEXT = (
    *prompt_pieces(DEFAULT_INSTRUCTION, video=True, audio=True),
    *(f"<think></think>\n<answer>{label}</answer>" for label in DEFAULT_LABELS),
    "The brows are raised and drawn together; the lip corners are pulled up, pressed or turned down. ",
    "The cheeks are lifted, the nose is wrinkled, the jaw drops, the eyes are wide, narrowed or closed. ",
    "The voice is high and loud, low and soft, fast or slow, breathy or tense, with long pauses. ",
    "The pitch rises, falls, varies widely or stays flat. The face is neutral. The voice is silent. ",
)


def preset_config(name: str, **changes: Any) -> EmostreamConfig:
    """Configuration of a preset; `vocab_size` of those in `OWN_SIZES` is that of the tokenizer unless given.

    Raises:
        ConfigError: No such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"from_preset: {name!r} is no preset; there are {', '.join(PRESETS)}.")
    return EmostreamConfig(**{**_QWEN2, **PRESETS[name], **changes})


def from_preset(
    name: str, *, seed: int = 0, texts: Iterable[str] = (), **changes: Any
) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """A preset with random weights, and its processor.

    The published tokenizers are not shipped, so `0.5b` and `7b` use the small tokenizer too: their ids are fewer, their
    shapes and costs the same.

    Args:
        name: `tiny`, `small`, `0.5b` or `7b`.
        seed: Of the weights; the global random state is left as it was.
        texts: Further text that the tokenizer should spell cheaply, such as a training corpus.
        **changes: Keys of the configuration that differ from the preset's.

    Returns:
        The model in eval mode, float32 on the CPU, and its processor.
    """
    tokenizer, gate_tokenizer = build_tokenizers((*BASE_TEXT, *texts))
    own = name in OWN_SIZES
    sizes = {"vocab_size": len(tokenizer)} if own else {}
    config = preset_config(
        name,
        **sizes,
        **changes,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if own:
        config.gate_config.vocab_size = len(gate_tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmostreamForCausalLM(config)
    return model.eval(), processor_for(config, tokenizer, gate_tokenizer)


def processor_for(
    config: EmostreamConfig, tokenizer: Any, gate_tokenizer: Any
) -> EmostreamProcessor:
    """A processor whose front ends follow from the towers' configurations."""
    side = config.vision_config.image_size
    context_s = config.audio_config.max_source_positions // 50
    return EmostreamProcessor(
        SiglipImageProcessorPil(size={"height": side, "width": side}),
        WhisperFeatureExtractor(
            feature_size=config.audio_config.num_mel_bins,
            sampling_rate=SAMPLE_RATE_HZ,
            chunk_length=context_s,
        ),
        tokenizer,
        gate_tokenizer,
        config=config,
    )


def build_tokenizers(
    texts: Iterable[str], vocab_size: int = 1024
) -> tuple[Qwen2Tokenizer, BertTokenizer]:
    """Train the language model's and the gate's tokenizers on a small domain; both spell any text.

    Args:
        texts: Training text.
        vocab_size: Upper bound of the byte-level BPE vocabulary, special tokens included (256 bytes are always in).

    Returns:
        Tokenizers in the classes, and so the files, of the published checkpoints.
    """
    texts = list(texts)
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    parts = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=parts["vocab"],
        merges=[tuple(merge) for merge in parts["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    words = sorted({word for text in texts for word in _bert_words(text)})
    letters = sorted({letter for word in words for letter in word} | set(map(chr, range(33, 127))))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    pieces += letters + [f"##{letter}" for letter in letters]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return tokenizer, BertTokenizer(vocab=vocabulary)


def _bert_words(text: str) -> list[str]:
    normal = normalizers.BertNormalizer().normalize_str(text)
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)]
