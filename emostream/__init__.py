"""Live audio-visual emotion recognition with reasons.

The public names are imported when they are first used, so that a subscriber pays for neither torch nor transformers.
Every error that a user can act on is an `EmostreamError`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emostream.errors import EmostreamError
    from emostream.inference.recognizer import Recognizer
    from emostream.model.load import load_model
    from emostream.model.save import save_model
    from stream.api.listen import listen
    from stream.api.recognize import recognize
    from stream.pubsub.client import AsyncEmotionClient, EmotionClient
    from stream.pubsub.messages import Label, Reasoning, Status

    __version__: str

__all__ = [
    "AsyncEmotionClient",
    "EmostreamError",
    "EmotionClient",
    "Label",
    "Reasoning",
    "Recognizer",
    "Status",
    "__version__",
    "listen",
    "load_model",
    "recognize",
    "save_model",
]

_HOMES = {
    "AsyncEmotionClient": "stream.pubsub.client",
    "EmostreamError": "emostream.errors",
    "EmotionClient": "stream.pubsub.client",
    "Label": "stream.pubsub.messages",
    "Reasoning": "stream.pubsub.messages",
    "Recognizer": "emostream.inference.recognizer",
    "Status": "stream.pubsub.messages",
    "listen": "stream.api.listen",
    "load_model": "emostream.model.load",
    "recognize": "stream.api.recognize",
    "save_model": "emostream.model.save",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("emostream")
    if name not in _HOMES:
        raise AttributeError(f"module 'emostream' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
