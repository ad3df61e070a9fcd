"""The message reference, `docs/messages.md`, from the JSON Schemas that ship in the package.

python docs/message_reference.py            # write it
python docs/message_reference.py --check    # fail if it is not what the schemas say
"""

import json
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from stream.pubsub.messages import (
    DEFAULT_ENDPOINT,
    Dropped,
    Event,
    Label,
    Latency,
    Modalities,
    Reasoning,
    Smoothed,
    Status,
    Window,
    encode,
)

PAGE = Path(__file__).with_name("messages.md")
KINDS = ("label", "reasoning", "status")

_HEAD = f"""# Message reference

<!-- Written by docs/message_reference.py from stream/schema/*.json: change those. -->

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
    schemas = {kind: _schema(kind) for kind in KINDS}
    first, *others = (schema["properties"] for schema in schemas.values())
    # `topic` and `timestamp_s` differ in detail, and are said of each message.
    common = [name for name in first if all(other.get(name) == first[name] for other in others)]
    parts = [
        _HEAD,
        "## In every message\n",
        _table(_rows({name: first[name] for name in common}, "", set(common))),
    ]
    for kind, schema in schemas.items():
        own = {n: s for n, s in schema["properties"].items() if n not in common}
        parts += [
            f"## {schema['title']}\n",
            f"{schema['description'].partition(' Fields not listed')[0]}\n",
            _table(_rows(own, "", set(schema["required"]))),
            "An example:\n",
            f"```json\n{json.dumps(json.loads(encode(EXAMPLES[kind])[1]), indent=1)}\n```\n",
        ]
    return "\n".join(parts)


def _schema(kind: str) -> dict[str, Any]:
    text = files("stream").joinpath("schema", f"{kind}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _rows(
    properties: dict[str, Any], prefix: str, required: set[str]
) -> Iterator[tuple[str, str, str]]:
    for name, schema in properties.items():
        text = schema.get("description", "")
        optional = "" if name in required else " (optional)"
        yield f"`{prefix}{name}`", _type(schema) + optional, text
        if "properties" in schema:
            yield from _rows(
                schema["properties"], f"{prefix}{name}.", set(schema.get("required", ()))
            )
        elif "additionalProperties" in schema:
            yield f"`{prefix}{name}.<label>`", _type(schema["additionalProperties"]), ""


def _type(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    text = " or ".join(kinds)
    if "pattern" in schema:
        text += f" `{schema['pattern']}`"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 2**53 - 1:
        text += f", {low} to {high}"
    elif low is not None:
        text += f", from {low}"
    return text


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
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
        model="tiny",
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
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE} is out of date: python docs/message_reference.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
