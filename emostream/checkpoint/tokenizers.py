"""Tokenizers in and out; written so that transformers 4, on which upstream's code runs, reads them too."""

from pathlib import Path
from typing import Any

from emostream.checkpoint.files import read_json, refuse_pointer, write_json
from emostream.errors import CheckpointError


def read_tokenizer(cls: Any, folder: Path, padding_side: str) -> Any:
    """A tokenizer of class `cls` from its folder.

    Raises:
        CheckpointError: The folder has no vocabulary, or one that cannot be read.
    """
    parts = [name for key, name in cls.vocab_files_names.items() if key != "tokenizer_file"]
    remedy = f"Copy tokenizer.json, or {' and '.join(parts)}, from the model's repository."
    # transformers itself makes an empty tokenizer of an empty folder.
    if not (folder / "tokenizer.json").is_file():
        for name in parts:
            if not (folder / name).is_file():
                raise CheckpointError(f"load_model: {folder / name} is missing. {remedy}")
    for file in (folder / name for name in ("tokenizer.json", *parts)):
        refuse_pointer(file)
    try:
        return cls.from_pretrained(folder, padding_side=padding_side)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise CheckpointError(
            f"load_model: the tokenizer in {folder} cannot be read ({error}). {remedy}"
        ) from error


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer with the vocabulary files and configuration keys of both major versions of transformers.

    transformers 5 writes tokenizer.json alone, its special tokens as a list and the chat template as a file of its own;
    the slow tokenizers that upstream asks for want vocabulary files, and version 4 knows the older keys only.

    Args:
        tokenizer: Of a class that is backed by the tokenizers library.
        folder: Where to; made if need be.
    """
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    tokenizer.backend_tokenizer.model.save(str(folder))
    file = folder / "tokenizer_config.json"
    config = read_json(file)
    config["additional_special_tokens"] = config.pop("extra_special_tokens", [])
    config["added_tokens_decoder"] = {
        str(index): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for index, token in tokenizer.added_tokens_decoder.items()
    }
    # Where the tokenizer came from says nothing about the copy.
    for key in ("is_local", "local_files_only"):
        config.pop(key, None)
    write_json(file, config)
