"""Lab Streaming Layer: two streams a source, stamped with capture time on LSL's clock.

`NAME scores` has the probability of each label and, after them, the smoothed ones: float64, irregular rate.
`NAME markers` has `label/happy` when the rolling label changes and `reasoning/happy: …` when an explanation ends.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any, Self

from emostream.errors import ConfigError
from stream.bridges.bridge import captured_unix_s
from stream.pubsub.messages import Event, Label, Reasoning, in_words

#: Outlets answer this host's questions alone; LSL's own default is the whole site.
_THIS_HOST = "[multicast]\nResolveScope = machine\n[log]\nlevel = -2\n"


class LslBridge:
    """Outlets of every source that publishes labels.

    Args:
        network: Let LSL announce them as it is configured, on the whole network by default.

    Raises:
        ConfigError: pylsl or liblsl is not installed.
    """

    def __init__(self, *, network: bool = False) -> None:
        self._lsl = _import_pylsl()
        if not network:
            self._lsl.set_config_content(_THIS_HOST)
        self._outlets: dict[str, _Outlets] = {}

    def send(self, event: Event) -> None:
        """Push a label's scores, and a marker where the rolling label changes or an explanation ends."""
        outlets = self._outlets.get(event.source)
        if isinstance(event, Label):
            if outlets is None or not outlets.fit(event):
                outlets = self._outlets[event.source] = _Outlets(self._lsl, event)
            outlets.push_label(event, self._clock_s(event))
        elif isinstance(event, Reasoning) and event.done and outlets is not None:
            outlets.push_marker(f"reasoning/{in_words(event)}", self._clock_s(event))

    def _clock_s(self, event: Event) -> float:
        """The capture time on LSL's clock."""
        clock_s: float = self._lsl.local_clock()
        return clock_s - (time.time() - captured_unix_s(event))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._outlets.clear()  # liblsl closes a stream with its last reference


class _Outlets:
    """The two streams of one source, as long as its labels and model stay the same."""

    def __init__(self, lsl: ModuleType, label: Label) -> None:
        self._names = tuple(label.scores)
        self._model = label.model
        self._held: str | None = None
        source = label.source
        channels = [*self._names, *(f"smoothed {name}" for name in self._names)]
        scores = lsl.StreamInfo(
            f"{source} scores",
            "Emotion",
            len(channels),
            lsl.IRREGULAR_RATE,
            lsl.cf_double64,
            f"emostream-{source}-scores",
        )
        markers = lsl.StreamInfo(
            f"{source} markers",
            "Markers",
            1,
            lsl.IRREGULAR_RATE,
            lsl.cf_string,
            f"emostream-{source}-markers",
        )
        scores.set_channel_labels(channels)
        scores.set_channel_types("Probability")
        scores.set_channel_units("normalized")
        markers.set_channel_labels(["label and reasoning"])
        markers.set_channel_types("Marker")
        for info in (scores, markers):
            _describe(info, label)
        self._scores = lsl.StreamOutlet(scores)
        self._markers = lsl.StreamOutlet(markers)

    def fit(self, label: Label) -> bool:
        """Whether the streams' metadata hold for a label; another model or label list needs new streams."""
        return self._names == tuple(label.scores) and self._model == label.model

    def push_label(self, label: Label, clock_s: float) -> None:
        smoothed = label.smoothed
        sample = [label.scores[name] for name in self._names]
        sample += [smoothed.scores[name] for name in self._names]
        self._scores.push_sample(sample, clock_s)
        if smoothed.label != self._held:
            self._held = smoothed.label
            self.push_marker(f"label/{smoothed.label}", clock_s)

    def push_marker(self, text: str, clock_s: float) -> None:
        self._markers.push_sample([text], clock_s)


def _describe(info: Any, label: Label) -> None:
    """Metadata that a recording keeps beside the samples."""
    window = label.window
    acquisition = info.desc().append_child("acquisition")
    acquisition.append_child_value("manufacturer", "emostream")
    acquisition.append_child_value("model", label.model)
    acquisition.append_child_value("source", label.source)
    acquisition.append_child_value("window_s", f"{window.end_s - window.start_s:g}")
    acquisition.append_child_value("timestamps", "end of the window, capture time")


def _import_pylsl() -> ModuleType:
    try:
        import pylsl
    except ModuleNotFoundError as error:
        raise ConfigError("bridge lsl needs pylsl: pip install 'emostream[bridges]'") from error
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"bridge lsl: pylsl finds no liblsl: {first}") from error
    module: ModuleType = pylsl
    return module
