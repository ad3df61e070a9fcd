import json
import typing
from importlib import resources
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, defstruct, structs

from stream.pubsub import messages
from stream.pubsub.messages import (
    MessageError,
    VersionError,
    decode,
    encode,
)
from tests.stream.events import events, label, reasoning, sources, stamped, status


def schema(kind: str) -> dict[str, Any]:
    text = resources.files("stream").joinpath(f"schema/{kind}.json").read_text(encoding="utf-8")
    return json.loads(text)


def validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(kind))


def kind_of(event: messages.Event) -> messages.Kind:
    return messages.parse_topic(event.topic)[0]


@given(events, st.sampled_from(["json", "msgpack"]))
def test_decode_inverts_encode(event: messages.Event, encoding: messages.Encoding) -> None:
    frames = encode(event, encoding)
    assert decode(frames) == event
    assert frames[0] == event.topic.encode()


@given(events)
def test_encoded_messages_satisfy_their_schema(event: messages.Event) -> None:
    validator(kind_of(event)).validate(json.loads(encode(event)[1]))


@given(events)
def test_json_is_strict_and_one_line(event: messages.Event) -> None:
    payload = encode(event)[1]
    assert b"\n" not in payload
    json.loads(payload, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("kind", messages.KINDS)
def test_schema_and_class_have_the_same_fields(kind: messages.Kind) -> None:
    whole = schema(kind)
    jsonschema.Draft202012Validator.check_schema(whole)

    def compare(cls: type[Struct], described: dict[str, Any]) -> None:
        fields = structs.fields(cls)
        assert set(described["properties"]) == {field.name for field in fields}
        assert set(described["required"]) == {
            field.name
            for field in fields
            if field.required or field.name in messages.Stamp.__struct_fields__
        }
        for name, hint in typing.get_type_hints(cls).items():
            inner = described["properties"][name]
            assert inner["description"], name
            if isinstance(hint, type) and issubclass(hint, Struct):
                assert inner["$ref"] == f"#/$defs/{hint.__name__}"
                compare(hint, whole["$defs"][hint.__name__])
            elif typing.get_origin(hint) is typing.Literal:
                assert set(inner["enum"]) == set(typing.get_args(hint))

    compare(messages.CLASSES[kind], whole)


BROKEN: list[tuple[messages.Event, dict[str, Any]]] = [
    (label(), {"seq": -1}),
    (label(), {"seq": 1.5}),
    (label(), {"seq": True}),
    (label(), {"seq": 2**53}),
    (label(), {"session": ""}),
    (label(), {"session": "a b"}),
    (label(), {"published_s": 0}),
    (label(), {"published_s": "now"}),
    (label(), {"source": "cam 0"}),
    (label(), {"topic": "emotion.cam0.mood"}),
    (label(), {"unix_time_s": "1"}),
    (label(), {"scores": {}}),
    (label(), {"scores": {"happy": 1.5}}),
    (label(), {"scores": {"happy": None}}),
    (label(), {"smoothed": None}),
    (label(), {"modalities": {"video": "ok", "audio": "quiet"}}),
    (label(), {"frames_used": -1}),
    (label(), {"audio_gap_ms": -0.5}),
    (label(), {"dropped": {"frames": 0, "audio_ms": 0}}),
    (label(), {"model": 3}),
    (reasoning(), {"done": False}),
    (reasoning(), {"done": 1}),
    (reasoning(), {"think": None}),
    (reasoning(), {"tokens": "9"}),
    (label(), {"people": -1}),
    (label(), {"speech_ratio": 1.2}),
    (label(), {"left_out": -1}),
    (label(), {"baseline_s": -1}),
    (status(), {"voice": True}),
    (label(), {"absent": {"video": 1}}),
    (label(), {"face": {"box": [0, 0, 1], "confidence": 0.9, "track": 1}}),
    (label(), {"face": {"box": [0, 0, -1, 1], "confidence": 0.9, "track": 1}}),
    (status(), {"state": "asleep"}),
    (status(), {"fps_in": -1}),
    (status(), {"uptime_s": None}),
    (status(), {"detail": 0}),
]


@pytest.mark.parametrize(("event", "change"), BROKEN, ids=[str(change) for _, change in BROKEN])
def test_decoder_and_schema_refuse_the_same(event: messages.Event, change: dict[str, Any]) -> None:
    raw = json.loads(encode(stamped(event))[1])
    validator(kind_of(event)).validate(raw)
    raw |= change
    assert not validator(kind_of(event)).is_valid(raw)
    with pytest.raises(MessageError):
        messages.decode_payload(json.dumps(raw).encode())


PRESENCE = {
    "people": 1,
    "face": messages.Face(box=(0.25, -0.1, 0.5, 0.5), confidence=0.9, track=7),
    "speech_ratio": 0.4,
    "absent": messages.Absent(video=None, audio="nobody speaking"),
    "left_out": 0,
    "voice": "attributed",
}
OPTIONAL = {*PRESENCE, "baseline_s"}


@pytest.mark.parametrize(
    "event", [label(**PRESENCE, baseline_s=12.5), status(**PRESENCE)], ids=kind_of
)
def test_who_is_there_is_carried_and_older_messages_lack_it(event: messages.Event) -> None:
    frames = encode(stamped(event))
    assert decode(frames) == stamped(event)
    raw = json.loads(frames[1])
    older = {name: value for name, value in raw.items() if name not in OPTIONAL}
    validator(kind_of(event)).validate(older)
    read = messages.decode_payload(json.dumps(older).encode())
    dropped = raw.keys() - older.keys()
    assert [getattr(read, name) for name in dropped] == [None] * len(dropped)


@pytest.mark.parametrize(
    "event", [label(**PRESENCE, baseline_s=12.5), status(**PRESENCE)], ids=kind_of
)
def test_a_receiver_from_before_presence_reads_every_message(event: messages.Event) -> None:
    known = [field for field in structs.fields(type(event)) if field.name not in OPTIONAL]
    earlier = defstruct(type(event).__name__, [(field.name, field.type) for field in known])
    read = msgspec.json.decode(encode(stamped(event))[1], type=earlier)
    for field in known:
        assert getattr(read, field.name) == getattr(stamped(event), field.name)


@pytest.mark.parametrize("event", [label(), reasoning(), status()], ids=kind_of)
def test_every_field_is_required(event: messages.Event) -> None:
    raw = json.loads(encode(stamped(event))[1])
    for name in raw.keys() - OPTIONAL:
        less = {key: value for key, value in raw.items() if key != name}
        assert not validator(kind_of(event)).is_valid(less)
        with pytest.raises(MessageError, match=name):
            messages.decode_payload(json.dumps(less).encode())


def test_rules_beyond_the_schema() -> None:
    raw = json.loads(encode(stamped(label()))[1])
    for change in (
        {"label": "bored"},
        {"scores": raw["scores"] | {"happy": 0.1}},
        {"smoothed": {"label": "happy", "scores": {"happy": 1.0}}},
        {"window": {"id": 8, "start_s": 4.0, "end_s": 4.0}},
        {"timestamp_s": 3.5},
        {"topic": "emotion.other.label"},
    ):
        with pytest.raises(MessageError):
            messages.decode_payload(json.dumps(raw | change).encode())


def test_unknown_fields_are_ignored() -> None:
    event = stamped(label())
    raw = json.loads(encode(event)[1])
    raw["mood"] = {"new": [1]}
    raw["window"]["hop"] = 1
    assert messages.decode_payload(json.dumps(raw).encode()) == event


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, None, True])
def test_unknown_version_says_which_and_what_to_do(version: object) -> None:
    raw = json.loads(encode(stamped(status()))[1]) | {"version": version}
    with pytest.raises(VersionError, match="reads version 1"):
        messages.decode_payload(json.dumps(raw).encode())
    # Its other fields are not ours to judge.
    with pytest.raises(VersionError):
        messages.decode_payload(json.dumps({"version": version}).encode())


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_message_error(payload: bytes) -> None:
    with pytest.raises(MessageError):
        messages.decode_payload(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 200_000,
        b"\x91" * 200_000,
        b'{"version":' + b"1" * 5000 + b"}",
        b'{"version":NaN}',
        b'{"version":1,"topic":"status.a","detail":"\\ud800"}',
        "{}".encode("utf-16"),
        b"",
    ],
    ids=["deep-json", "deep-msgpack", "long-number", "nan", "surrogate", "utf-16", "empty"],
)
def test_hostile_payloads_raise_message_error(payload: bytes) -> None:
    with pytest.raises(MessageError):
        messages.decode_payload(payload)


def test_lone_surrogates_and_infinities_are_refused() -> None:
    text = encode(stamped(status()))[1].decode()
    with pytest.raises(MessageError, match="surrogate"):
        messages.decode_payload(text.replace('"detail":""', '"detail":"\\ud800"').encode())
    with pytest.raises(MessageError, match="finite"):
        messages.decode_payload(text.replace('"fps_in":29.97', '"fps_in":1e999').encode())
    with pytest.raises(MessageError, match="finite"):
        messages.decode_payload(text.replace("29.97", "9" * 400).encode())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True])
def test_producers_learn_at_construction(value: Any) -> None:
    with pytest.raises(MessageError, match="fps_in"):
        status(fps_in=value)


def test_unstamped_events_are_not_sent() -> None:
    with pytest.raises(MessageError, match="stamped"):
        encode(label())


def test_frames_must_be_topic_and_payload() -> None:
    topic, payload = encode(stamped(label()))
    for frames in ([payload], [topic, payload, b""], [], [b"status.cam0", payload]):
        with pytest.raises(MessageError):
            decode(frames)


@given(sources, st.sampled_from(messages.KINDS))
def test_parse_topic_inverts_topic_of(source: str, kind: messages.Kind) -> None:
    assert messages.parse_topic(messages.topic_of(kind, source)) == (kind, source)


@pytest.mark.parametrize(
    "topic",
    ["", "status", "status.", "status.a.b", "emotion.a", "emotion.a.status", "emotion..label"],
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(MessageError):
        messages.parse_topic(topic)


@pytest.mark.parametrize("name", ["", "a" * 33, "a.b", "a b", "é", "a\n"])
def test_source_names_are_checked(name: str) -> None:
    with pytest.raises(MessageError, match="A-Za-z0-9"):
        messages.check_source(name)
    with pytest.raises(MessageError):
        status(source=name)
