"""Open Sound Control over UDP, one bundle a label, one message an explanation or status.

    /emostream/NAME/label            s f f   rolling label, its probability, age
    /emostream/NAME/score/LABEL      f       probability in this window
    /emostream/NAME/smoothed/LABEL   f       rolling probability
    /emostream/NAME/reasoning        s s f   answer, explanation, age
    /emostream/NAME/status           s s     state, detail

Age is seconds from capture to sending, so that a receiver can place the value in time with single floats.
"""

from __future__ import annotations

import re
import time
from typing import Any, Self

from emostream.errors import ConfigError
from stream.bridges.bridge import captured_unix_s
from stream.pubsub.messages import Event, Label, Reasoning
from stream.pubsub.tracking import warn_sparsely
from stream.sockets.endpoints import check_exposure


class OscBridge:
    """Sends to one UDP address; nobody need listen there.

    Args:
        to: `HOST:PORT`.
        insecure: `to` may be another host, although nothing protects what is sent.

    Raises:
        ConfigError: python-osc is not installed, or `to` is malformed or beyond this host.
    """

    def __init__(self, to: str, *, insecure: bool = False) -> None:
        check_exposure(f"tcp://{to}", secured=False, insecure=insecure)
        try:
            from pythonosc.udp_client import SimpleUDPClient
        except ModuleNotFoundError as error:
            raise ConfigError(
                "bridge osc needs python-osc: pip install 'emostream[bridges]'"
            ) from error
        self._failures = 0
        host, _, port = to.rpartition(":")
        try:
            self._client = SimpleUDPClient(host.strip("[]"), int(port))
        except (OSError, ValueError) as error:
            raise ConfigError(f"bridge osc: cannot send to {to}: {error}") from error

    def send(self, event: Event) -> None:
        """Send what an event says; an explanation once it is finished."""
        root = f"/emostream/{event.source}"
        age_s = time.time() - captured_unix_s(event)
        if isinstance(event, Label):
            held, rolling = event.smoothed.label, event.smoothed.scores
            messages: list[tuple[str, list[Any]]] = [
                (f"{root}/label", [held, rolling[held], age_s]),
                *((f"{root}/score/{_part(name)}", [p]) for name, p in event.scores.items()),
                *((f"{root}/smoothed/{_part(name)}", [p]) for name, p in rolling.items()),
            ]
        elif isinstance(event, Reasoning):
            if not event.done:
                return
            messages = [(f"{root}/reasoning", [event.answer or "", event.think, age_s])]
        else:
            messages = [(f"{root}/status", [event.state, event.detail])]
        self._send(messages)

    def _send(self, messages: list[tuple[str, list[Any]]]) -> None:
        from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
        from pythonosc.osc_message_builder import build_msg

        bundle = OscBundleBuilder(IMMEDIATELY)
        for address, values in messages:
            bundle.add_content(build_msg(address, values))
        try:
            self._client.send(bundle.build())
        except OSError as error:  # a network that is away for a while
            self._failures += 1
            warn_sparsely(self._failures, "bridge osc: cannot send: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _part(label: str) -> str:
    """A label as part of an OSC address, which some characters have a meaning in."""
    return re.sub(r"[\s#*,/?\[\]{}]", "_", label)
