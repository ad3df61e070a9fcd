"""What prepares frames, sound and text for the networks of a checkpoint, from its files."""

from pathlib import Path
from typing import Any, NamedTuple

from transformers import BertTokenizer, Qwen2Tokenizer, WhisperFeatureExtractor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from emostream.checkpoint.files import read_json
from emostream.checkpoint.resolve import Checkpoint
from emostream.checkpoint.tokenizers import read_tokenizer
from emostream.model.configuration import EmostreamConfig

#: What is fetched of a BERT of which only the vocabulary is wanted.
VOCABULARY_PATTERNS = ("tokenizer*.json", "vocab.txt", "special_tokens_map.json")


class FrontEnds(NamedTuple):
    """The parts of a processor.

    Attributes:
        image_processor: SigLIP's, on Pillow.
        feature_extractor: Whisper's log-mel front end.
        tokenizer: The language model's.
        gate_tokenizer: BERT's, for the instruction gate.
    """

    image_processor: SiglipImageProcessorPil
    feature_extractor: WhisperFeatureExtractor
    tokenizer: Any
    gate_tokenizer: Any


def read_front_ends(checkpoint: Checkpoint, config: EmostreamConfig) -> FrontEnds:
    """The front ends of a checkpoint.

    Raises:
        CheckpointError: A tokenizer is missing or cannot be read.
    """
    vision, audio, gate = checkpoint.parts
    size = config.vision_config.image_size
    vocabulary = gate.folder
    if vocabulary is None or not any(
        (vocabulary / name).is_file() for name in ("vocab.txt", "tokenizer.json")
    ):
        # BERT's vocabulary is in no published checkpoint, so it is the one part that always comes from elsewhere.
        vocabulary = gate.fetch(VOCABULARY_PATTERNS)
    return FrontEnds(
        SiglipImageProcessorPil.from_dict(
            {"size": {"height": size, "width": size}, **_preprocessor(vision.folder)}
        ),
        WhisperFeatureExtractor.from_dict(
            {"feature_size": config.audio_config.num_mel_bins, **_preprocessor(audio.folder)}
        ),
        read_tokenizer(Qwen2Tokenizer, checkpoint.root, "left"),
        read_tokenizer(BertTokenizer, vocabulary, "right"),
    )


def _preprocessor(folder: Path | None) -> dict[str, Any]:
    """preprocessor_config.json of a tower's folder; empty without one, since the towers' own defaults serve."""
    file = folder / "preprocessor_config.json" if folder else None
    return read_json(file) if file is not None and file.is_file() else {}
