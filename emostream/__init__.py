"""Live audio-visual emotion recognition with reasons.

The public names are `load_model`, `save_model` and `EmotionClient`; they are imported when first used, so that a
subscriber pays for neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emostream.model.load import load_model
    from emostream.model.save import save_model

__all__ = ["EmotionClient", "load_model", "save_model"]

_HOMES = {
    "load_model": "emostream.model.load",
    "save_model": "emostream.model.save",
    "EmotionClient": "stream.pubsub.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emostream' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
