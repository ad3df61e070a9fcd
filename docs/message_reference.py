"""The JSON Schemas that ship in the package, and the message reference `docs/messages.md`, from the message classes.

python docs/message_reference.py            # write them
python docs/message_reference.py --check    # fail if they are not what the classes say
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from stream.pubsub import messages
from stream.pubsub.messages import (
    DEFAULT_ENDPOINT,
    KINDS,
    Dropped,
    Event,
    Kind,
    Label,
    Latency,
    Modalities,
    Reasoning,
    Smoothed,
    Stamp,
    Status,
    Window,
    encode,
)

PAGE = Path(__file__).with_name("messages.md")
SCHEMAS = Path(__file__).parents[1] / "stream" / "schema"
_IGNORED = "Fields not listed here are to be ignored."
_RULES: dict[Kind, dict[str, Any]] = {
    "reasoning": {
        "if": {"properties": {"done": {"const": False}}},
        "then": {"properties": {"answer": {"type": "null"}, "agrees_with_label": {"type": "null"}}},
    }
}

_HEAD = f"""# Message reference

<!-- Written by docs/message_reference.py from stream/pubsub/messages.py: change that. -->

A publisher (`emostream run`, `emostream replay`) binds a ZeroMQ XPUB socket, by default on `{DEFAULT_ENDPOINT}`. Every
message has two parts, `[topic, payload]`; the payload is one UTF-8 JSON object, or the same map in msgpack with
`--encoding msgpack`. The schemas ship in the package as `stream/schema/label.json`, `reasoning.json` and `status.json`.

| topic | when |
|---|---|
| `emotion.<source>.label` | every hop, twice a second by default |
| `emotion.<source>.reasoning` | while an explanation is being written, and once it is done |
| `status.<source>` | every second and at every change of state |

Rules for a receiver:

- Subscribe to `emotion.cam1.` with its trailing dot: a prefix without it also matches `cam10`.
- Ignore fields that you do not know; refuse a `version` that you do not know.
- Discard a `(session, topic, seq)` that you have had. A late subscriber is sent the last message of each topic again,
  and others may receive it too.
- A gap in `seq` is loss on the way: ZeroMQ drops for a subscriber that lags. A gap in `window.id` is a window that the
  pipeline skipped, and `dropped` counts what the model never saw.
- A subscription to `preview.<source>` also brings pictures of what the camera sees, `[topic, header, jpeg]`, outside
  this contract. They are made only while somebody asks for them by that name.
"""


def page() -> str:
    """The whole page."""
    schemas = {kind: schema(kind) for kind in KINDS}
    first, *others = (found["properties"] for found in schemas.values())
    # `topic` differs in detail, and is said of each message.
    common = [name for name in first if all(other.get(name) == first[name] for other in others)]
    parts = [_HEAD, "## In every message\n", _table(_some(schemas["label"], lambda n: n in common))]
    for kind, found in schemas.items():
        parts += [
            f"## {found['title']}\n",
            f"{found['description'].removesuffix(_IGNORED).strip()}\n",
            _table(_some(found, lambda name: name not in common)),
            "An example:\n",
            f"```json\n{json.dumps(json.loads(encode(EXAMPLES[kind])[1]), indent=1)}\n```\n",
        ]
    return "\n".join(parts)


def _some(whole: dict[str, Any], wanted: Callable[[str], bool]) -> Iterator[tuple[str, ...]]:
    kept = {name: spec for name, spec in whole["properties"].items() if wanted(name)}
    return _rows(whole | {"properties": kept}, "", whole)


def schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema of a payload; what an event has only once it is published is required here."""
    cls = messages.CLASSES[kind]
    definitions = msgspec.json.schema(cls)["$defs"]
    for name, definition in definitions.items():
        _describe(definition, getattr(messages, name))
    whole = definitions.pop(cls.__name__)
    whole["description"] += f" {_IGNORED}"
    for name in Stamp.__struct_fields__:
        del whole["properties"][name]["default"]
    whole["required"] = [n for n, spec in whole["properties"].items() if "default" not in spec]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:emostream:wire:{messages.VERSION}:{kind}",
        **whole,
        **_RULES.get(kind, {}),
        **({"$defs": definitions} if definitions else {}),
    }


def _describe(definition: dict[str, Any], cls: type) -> None:
    """Give a class's schema its docstring's words: the summary, and those for each attribute."""
    for origin in reversed(cls.__mro__):
        summary, _, attributes = inspect.cleandoc(origin.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(
            r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.MULTILINE | re.DOTALL
        ):
            if name in definition["properties"]:
                definition["properties"][name]["description"] = " ".join(text.split())
    definition["description"] = " ".join(summary.split())


def _rows(schema: dict[str, Any], prefix: str, whole: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, spec in schema["properties"].items():
        optional = "" if name in schema["required"] else " (optional)"
        yield f"`{prefix}{name}`", _type(spec) + optional, spec["description"]
        for option in spec.get("anyOf", [spec]):
            if "$ref" in option:
                inner = whole["$defs"][option["$ref"].rpartition("/")[2]]
                yield from _rows(inner, f"{prefix}{name}.", whole)
            elif "additionalProperties" in option:
                yield f"`{prefix}{name}.<label>`", _type(option["additionalProperties"]), ""


def _type(spec: dict[str, Any]) -> str:
    if "anyOf" in spec:
        return " or ".join(_type(option) for option in spec["anyOf"])
    if "enum" in spec:
        return " \\| ".join(f"`{value}`" for value in spec["enum"])
    text = str(spec.get("type", "object"))
    if "pattern" in spec:
        text += f" `{spec['pattern']}`"
    low, high = spec.get("minimum"), spec.get("maximum")
    if low is not None and high is not None and high < 2**53 - 1:
        text += f", {low} to {high}"
    elif low is not None:
        text += f", from {low}"
    return text


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    lines = ["| field | type | meaning |", "|---|---|---|"]
    lines += [f"| {name} | {kind} | {text} |" for name, kind, text in rows]
    return "\n".join(lines) + "\n"


_LABELS = ("happy", "surprise", "neutral", "angry", "disgust", "sad", "fear")
_SCORES = dict(zip(_LABELS, (0.81, 0.1, 0.05, 0.01, 0.01, 0.01, 0.01), strict=True))
_SMOOTHED = dict(zip(_LABELS, (0.72, 0.15, 0.08, 0.02, 0.01, 0.01, 0.01), strict=True))
_WINDOW = Window(id=25, start_s=8.5, end_s=12.5)
_LATENCY = Latency(capture=22.4, queue=0.5, encode=22.6, prefill=17.9, decode=0.4, total=64.2)
_STAMP: dict[str, Any] = {
    "session": "6f1c0a52",
    "source": "cam0",
    "timestamp_s": 12.5,
    "unix_time_s": 1764072012.5,
}

#: A message of each kind, as a publisher would send it.
EXAMPLES: dict[str, Event] = {
    "label": Label(
        **_STAMP,
        seq=17,
        published_s=1764072012.564,
        window=_WINDOW,
        label="happy",
        scores=_SCORES,
        smoothed=Smoothed(label="happy", scores=_SMOOTHED),
        modalities=Modalities(video="ok", audio="ok"),
        frames_used=8,
        audio_gap_ms=0.0,
        av_skew_ms=-12.5,
        dropped=Dropped(frames=0, audio_ms=0.0, windows=0),
        latency_ms=_LATENCY,
        model="small",
        baseline_s=7.5,
    ),
    "reasoning": Reasoning(
        **_STAMP,
        seq=41,
        published_s=1764072012.871,
        window=_WINDOW,
        think="The corners of the lips are pulled up and the cheeks raised. The voice is high and quick.",
        answer="happy",
        agrees_with_label=True,
        done=True,
        tokens=27,
        latency_ms=Latency(
            capture=22.4, queue=0.5, encode=22.6, prefill=17.9, decode=51.3, total=371.0
        ),
    ),
    "status": Status(
        **_STAMP,
        seq=12,
        published_s=1764072012.5,
        state="live",
        detail="",
        fps_in=29.97,
        hops_per_s=2.0,
        skipped=0,
        restarts=0,
        uptime_s=12.6,
    ),
}


def main() -> int:
    """Write the page and the schemas, or check them."""
    texts = {PAGE: page()} | {
        SCHEMAS / f"{kind}.json": json.dumps(schema(kind), indent=2) + "\n" for kind in KINDS
    }
    for path, text in texts.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            print(f"{path} is out of date: python docs/message_reference.py", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
