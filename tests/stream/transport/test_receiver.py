"""The ingest protocol and both its ends over real sockets: nothing blocks capture, nothing that comes in crashes."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from emostream.errors import ConfigError, InputError, LinkError
from stream.sockets import endpoints, local_endpoint, security
from stream.transport.events import PeerLost
from stream.transport.grid_picker import FLUSH_AFTER_S, GridPicker, Pick
from stream.transport.protocol import (
    Credit,
    End,
    Epoch,
    FrameHeader,
    Hello,
    IngestAddress,
    PcmHeader,
    Ping,
    Pong,
    ProtocolError,
    Reject,
    Start,
    State,
    Stop,
    Unknown,
    Watermark,
    Welcome,
    decode_downstream,
    decode_upstream,
    encode,
)
from stream.transport.receiver import Receiver
from stream.transport.send_queue import MAX_NOTICES, Item, SendQueue
from stream.transport.sender import CaptureLink
from tests.stream.receiver_rig import WAIT_S, Listening, events_of

RGB = np.zeros((2, 3, 3), np.uint8)

UPSTREAM = [
    Hello("cam0", ("video", "audio"), 7, "host", False, "secret", 0.3),
    FrameHeader(1.5, 3, 480, 640, 1.5),
    PcmHeader(2.25, 9, 4),
    Watermark("audio", 7.0),
    State("video", "lost", "unplugged", 3, 0.0, 2, 0.001),
    Epoch(123.5),
    End(),
    Ping(5.5),
]
DOWNSTREAM = [
    Welcome(0.5, True, 3.0, 1.5),
    Reject("no"),
    Unknown(),
    Start(),
    Credit(4),
    Stop(),
    Pong(1.0, 2.0, 3.0),
]


@pytest.mark.parametrize("message", UPSTREAM, ids=lambda message: type(message).__name__)
def test_upstream_messages_survive_the_wire(message) -> None:
    assert decode_upstream(encode(message)) == message


@pytest.mark.parametrize("message", DOWNSTREAM, ids=lambda message: type(message).__name__)
def test_downstream_messages_survive_the_wire(message) -> None:
    assert decode_downstream(encode(message)) == message


@settings(max_examples=300)
@given(st.binary(max_size=60), st.booleans())
def test_garbage_raises_protocol_errors_only(data: bytes, right_version: bool) -> None:
    if right_version:
        data = b"\x01" + data
    for decode in (decode_upstream, decode_downstream):
        with contextlib.suppress(ProtocolError):
            decode(data)


@settings(max_examples=200)
@given(st.sampled_from(UPSTREAM), st.data())
def test_a_damaged_message_raises_protocol_errors_only(message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode_upstream(bytes(raw))


@pytest.mark.parametrize(
    "message",
    [
        FrameHeader(float("nan"), 0, 2, 3),
        FrameHeader(0.0, 0, 2, 3, float("inf")),
        PcmHeader(float("-inf"), 0),
        Watermark("video", float("nan")),
        Epoch(float("nan")),
        FrameHeader(0.0, 0, 0, 3),
        FrameHeader(0.0, -1, 2, 3),
        Hello("a b", ("video",), 1, "host", False),
        Hello("x" * 33, ("video",), 1, "host", False),
        Hello("cam", (), 1, "host", False),
    ],
)
def test_values_out_of_range_are_malformed(message) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_upstream(encode(message))
    assert caught.value.kind == "malformed"


def test_another_version_is_told_apart_from_garbage() -> None:
    with pytest.raises(ProtocolError, match="version 1, found 2") as caught:
        decode_upstream(b"\x02" + encode(End())[1:])
    assert caught.value.kind == "version"


# Which frames travel


def picks_of(picks: list[Pick]) -> list[tuple[float | None, float | None]]:
    return [(pick.time_s if pick.rgb is not None else None, pick.watermark_s) for pick in picks]


def test_the_newest_frame_of_a_cell_travels_when_the_next_cell_begins() -> None:
    picker = GridPicker(0.5)
    assert picker.offer(0.1, RGB) == picker.offer(0.4, RGB) == picker.offer(0.5, RGB) == []
    assert picks_of(picker.offer(0.6, RGB)) == [(0.5, 0.5)]
    assert picks_of(picker.offer(2.1, RGB)) == [(0.6, 2.0)]  # and so are the cells between
    assert picks_of(picker.close()) == [(2.1, None)]
    assert picker.close() == []


def test_a_late_frame_travels_at_once() -> None:
    picker = GridPicker(0.5)
    picker.offer(0.6, RGB)
    assert picks_of(picker.offer(0.3, RGB)) == [(0.3, None)]


def test_a_cell_that_is_over_by_the_clock_is_due_soon() -> None:
    picker = GridPicker(0.5)
    assert picker.flush_due_s is None
    picker.offer(0.7, RGB)
    assert picker.flush_due_s == pytest.approx(1.0 + FLUSH_AFTER_S)


def test_only_frames_that_may_be_the_newest_are_wanted() -> None:
    """At 30 fps: the first of each cell, in case the camera stops, and the last ones."""
    picker = GridPicker(0.5)
    wanted = [i for i in range(1, 60) if picker.wanted(i / 30)[0]]
    cells = [[i for i in wanted if 15 * k < i <= 15 * k + 15] for k in range(4)]
    for k, cell in enumerate(cells[1:3], 1):
        assert cell[0] == 15 * k + 1
        assert cell[-1] == 15 * k + 15
        assert len(cell) <= 4


@settings(max_examples=100)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=60, unique=True).map(sorted))
def test_the_frames_that_travel_are_the_newest_of_their_cells(times_ms: list[int]) -> None:
    picker = GridPicker(0.5)
    picks = [pick for ms in times_ms for pick in picker.offer(ms / 1000, RGB)] + picker.close()
    newest: dict[int, int] = {}
    for ms in times_ms:
        newest[-(-ms // 500)] = ms
    assert [pick.time_s for pick in picks] == [ms / 1000 for ms in newest.values()]
    assert all(pick.watermark_s is None or pick.watermark_s >= pick.time_s for pick in picks)


# What waits to be sent


def frame_item() -> Item:
    return Item(FrameHeader(0.0, 0, 2, 3))


def pcm_item(ms: float) -> Item:
    return Item(PcmHeader(0.0, 0), audio_ms=ms)


def test_the_oldest_of_a_kind_is_dropped_and_counted() -> None:
    queue = SendQueue(max_frames=2, max_audio_ms=100)
    items = [
        frame_item(),
        pcm_item(60),
        frame_item(),
        Item(State("video", "live")),
        frame_item(),
        pcm_item(60),
    ]
    for item in items:
        queue.put_dropping(item)
    assert (queue.dropped_frames, queue.dropped_audio_ms) == (1, 60)
    kept = [queue.pop() for _ in range(len(queue))]
    assert kept == items[2:]


def test_states_do_not_pile_up_without_end() -> None:
    queue = SendQueue(max_frames=2, max_audio_ms=100)
    for number in range(10 * MAX_NOTICES):
        queue.put_dropping(Item(State("video", "retrying", str(number))))
    assert len(queue) == MAX_NOTICES
    newest = [queue.pop() for _ in range(len(queue))][-1]
    assert isinstance(newest.header, State)
    assert newest.header.detail == str(10 * MAX_NOTICES - 1)


# Both ends


@pytest.fixture
def receiver() -> Iterator[Listening]:
    with Listening() as receiver:
        yield receiver


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def link_to(address: IngestAddress, modalities=("video", "audio"), **options) -> CaptureLink:
    return CaptureLink(
        address, source=options.pop("source", "cam0"), modalities=modalities, **options
    )


def test_frames_sound_and_states_arrive_in_order(receiver: Listening) -> None:
    rng = np.random.default_rng(0)
    # Media time: of a device, cells that are over by the clock would go at once, whatever may still follow.
    with link_to(receiver.server.bind_local(), clock="media") as link:
        assert link.wait_ready(WAIT_S).step_s == link.step_s == 0.5
        assert link.clock_offset_s == 0.0  # one host, one clock
        base_s = float(np.floor(time.perf_counter())) - 10
        link.send_state("video", "live")
        pictures = rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
        samples = rng.standard_normal((6, 1600)).astype(np.float32)
        for i in range(6):
            link.send_frame(time_s=base_s + 0.3 * i, rgb=pictures[i])
            link.send_pcm(start_s=base_s + 0.1 * i, pcm=samples[i], gap_samples=i)
        link.send_watermark("audio", base_s + 0.7)
        link.send_end()
        assert link.wait_stopped(WAIT_S)  # all has been received
    receiver.wait_events(End)
    frames, chunks = receiver.of(FrameHeader), receiver.of(PcmHeader)
    images, sounds = receiver.events_of(FrameHeader), receiver.events_of(PcmHeader)
    # Cells of 0.5 s: 0.0 | 0.3 | 0.6 0.9 | 1.2 1.5 with the last of each kept.
    assert [round(frame.time_s - base_s, 6) for frame in frames] == [0.0, 0.3, 0.9, 1.5]
    marks = [
        frame.watermark_s if frame.watermark_s is None else frame.watermark_s - base_s
        for frame in frames
    ]
    assert marks == [0.0, 0.5, 1.0, None]
    for image, number in zip(images, (0, 1, 3, 5), strict=True):
        np.testing.assert_array_equal(image.data, pictures[number])
        assert not image.data.flags.writeable
    assert [frame.seq for frame in frames] == [0, 1, 2, 3]
    assert (
        [chunk.seq for chunk in chunks] == [chunk.gap_samples for chunk in chunks] == list(range(6))
    )
    for i, chunk in enumerate(chunks):
        assert chunk.start_s == base_s + 0.1 * i
        np.testing.assert_array_equal(sounds[i].data, samples[i])
    connected = receiver.of(Hello)[0]
    assert (connected.pid, connected.modalities) == (os.getpid(), ("video", "audio"))
    assert receiver.of(State)[0].state == "live"
    assert [mark.modality for mark in receiver.of(Watermark)] == ["audio"]
    assert receiver.events_of(End)[0].hello.modalities == ("video", "audio")
    assert receiver.server.stats().keys() <= {"disconnected"}


def test_a_frame_does_not_wait_for_the_next_one_for_ever(receiver: Listening) -> None:
    with link_to(receiver.server.bind_local(), ("video",)) as link:
        link.wait_ready(WAIT_S)
        link.send_frame(time_s=time.perf_counter(), rgb=RGB)
        assert receiver.wait_events(FrameHeader)[0].watermark_s is None


def test_losing_the_camera_sends_the_frame_that_is_held_before_the_news(
    receiver: Listening,
) -> None:
    with link_to(receiver.server.bind_local(), ("video",), clock="media") as link:
        link.wait_ready(WAIT_S)
        link.send_frame(time_s=1.2, rgb=RGB)
        link.send_state("video", "lost", "unplugged", restarts=3)
        lost = receiver.wait_events(State)[0]
    assert (lost.state, lost.detail, lost.restarts) == ("lost", "unplugged", 3)
    kinds = [type(event.message) for event in receiver.events]
    assert kinds.index(FrameHeader) < kinds.index(State)


def test_grid_frames_travel_at_once_and_complete_their_cell(receiver: Listening) -> None:
    with link_to(receiver.server.bind_local(), ("video",), clock="media") as link:
        link.wait_ready(WAIT_S)
        link.send_grid_frame(time_s=1.2, rgb=RGB)
        frame = receiver.wait_events(FrameHeader)[0]
    assert (frame.time_s, frame.watermark_s) == (1.2, 1.5)


def test_the_mark_of_a_paced_frame_may_be_a_whole_step_ahead_of_the_clock() -> None:
    """A slow video in long windows: the frame is the newest of a cell that has only begun."""
    with (
        Listening(step_s=3.0) as receiver,
        link_to(receiver.server.bind_local(), ("video",), clock="media") as link,
    ):
        link.wait_ready(WAIT_S)
        link.send_epoch(time.perf_counter())
        link.send_grid_frame(time_s=0.1, rgb=RGB)
        link.send_watermark("video", 3.5)
        receiver.wait_for(lambda: receiver.server.stats().get("future", 0))
        assert [frame.watermark_s for frame in receiver.of(FrameHeader)] == [3.0]
        assert receiver.of(Watermark) == []


def test_sound_is_one_piece_unless_it_truly_jumps(receiver: Listening) -> None:
    chunk = np.ones(1600, np.float32)
    with link_to(receiver.server.bind_local(), ("audio",), clock="media") as link:
        link.wait_ready(WAIT_S)
        for start_s in (1.0, 1.1012, 1.1990, 1.35):
            link.send_pcm(start_s=start_s, pcm=chunk)
        starts = [pcm.start_s for pcm in receiver.wait_events(PcmHeader, 4)]
    assert starts == [1.0, 1.1, 1.2, 1.35]


def test_a_chunk_of_any_length_is_cut_to_what_a_message_may_hold(receiver: Listening) -> None:
    pcm = np.arange(25 * 16_000, dtype=np.float32) / 400_000
    with link_to(receiver.server.bind_local(), ("audio",), clock="media", max_audio_s=60) as link:
        link.wait_ready(WAIT_S)
        link.send_pcm(start_s=0.0, pcm=pcm, gap_samples=160_003)
        chunks = receiver.wait_events(PcmHeader, 3)
        sounds = receiver.events_of(PcmHeader)
    np.testing.assert_array_equal(np.concatenate([sound.data for sound in sounds]), pcm)
    assert [chunk.start_s for chunk in chunks] == [0.0, 10.0, 20.0]
    assert [chunk.gap_samples for chunk in chunks] == [160_000, 3, 0]


def test_wrong_arrays_and_names_are_refused_at_the_call(receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with pytest.raises(ConfigError, match="source name"):
        link_to(address, source="front door")
    with pytest.raises(ConfigError, match="streams"):
        link_to(address, modalities=())
    with link_to(address) as link:
        link.wait_ready(WAIT_S)
        for rgb in (RGB.astype(np.float32), RGB[..., :2], RGB[0], RGB[:0]):
            with pytest.raises(InputError, match="send_frame"):
                link.send_frame(time_s=0.0, rgb=rgb)
        for pcm in (np.zeros(4), np.zeros((4, 2), np.float32)):
            with pytest.raises(InputError, match="send_pcm"):
                link.send_pcm(start_s=0.0, pcm=pcm)


def test_live_capture_never_blocks_and_drops_the_oldest(receiver: Listening) -> None:
    """The server does not listen; what it finds when it does is the newest, and how much is not there."""
    address = receiver.server.bind_local()
    with link_to(address, clock="media", max_frames=3, max_audio_s=0.5) as link:
        link.wait_ready(WAIT_S)
        link.send_state("video", "live")
        link.send_state("audio", "live")
        receiver.wait_events(State, 2)
        receiver.stop()
        rgb = np.zeros((720, 1280, 3), np.uint8)
        total = 300
        for i in range(total):
            link.send_grid_frame(time_s=0.5 * i, rgb=rgb)
            link.send_pcm(start_s=0.1 * i, pcm=np.zeros(1600, np.float32))
        assert link.dropped_frames > 0
        assert link.dropped_audio_ms > 0
        link.send_end()
        events: list = []
        while not any(isinstance(event.message, End) for event in events):
            events += receiver.server.poll(1000)
        frames = events_of(events, FrameHeader)
        chunks = events_of(events, PcmHeader)
        assert frames[-1].message.time_s == 0.5 * (total - 1)
        assert len(frames) + link.dropped_frames == total
        assert 100 * len(chunks) + link.dropped_audio_ms == pytest.approx(100 * total)

        def told(counter: str) -> float:
            """The largest count so far: earlier messages told of fewer drops."""
            states = [event.message for event in events_of(events, State)]
            return max((getattr(state, counter) for state in states), default=0)

        while told("dropped_frames") < link.dropped_frames:
            events += receiver.server.poll(1000)
        while told("dropped_audio_ms") < link.dropped_audio_ms - 1e-6:
            events += receiver.server.poll(1000)
        assert told("dropped_frames") == link.dropped_frames
        assert told("dropped_audio_ms") == pytest.approx(link.dropped_audio_ms)
        assert "lost_in_transport" not in receiver.server.stats()


def test_lossless_capture_waits_and_loses_nothing() -> None:
    with Listening(grant=False) as receiver:
        address = receiver.server.bind_local()
        with link_to(address, ("audio",), clock="media", lossless=True, max_audio_s=0.2) as link:
            link.wait_ready(WAIT_S)
            receiver.server.start()
            sender = threading.Thread(
                target=lambda: [
                    link.send_pcm(start_s=i / 10, pcm=np.full(1600, i, np.float32))
                    for i in range(60)
                ]
            )
            sender.start()
            granted = 16
            while granted < 60:
                receiver.wait_events(PcmHeader, granted)
                assert len(receiver.of(PcmHeader)) == granted  # never more than was granted
                receiver.server.grant("cam0", 4)
                granted += 4
            receiver.wait_events(PcmHeader, 60)
            sender.join()
        assert [int(chunk.data[0]) for chunk in receiver.events_of(PcmHeader)] == list(range(60))
        assert link.dropped_audio_ms == 0


def test_a_lossless_sender_that_waits_is_freed_by_a_stop() -> None:
    with Listening(grant=False) as receiver:
        options = {"clock": "media", "lossless": True, "max_audio_s": 0.2}
        with link_to(receiver.server.bind_local(), ("audio",), **options) as link:
            link.wait_ready(WAIT_S)
            sender = threading.Thread(
                target=lambda: [
                    link.send_pcm(start_s=i / 10, pcm=np.zeros(1600, np.float32)) for i in range(60)
                ]
            )
            sender.start()
            receiver.stop()
            receiver.server.close()
            sender.join(WAIT_S)
            assert not sender.is_alive()
            assert link.stopped
            assert not link.refused


def test_whoever_is_connected_when_the_server_closes_is_told_to_stop() -> None:
    for _ in range(12):  # what a peer has not read when the connection ends, libzmq forgets
        with Listening() as receiver, link_to(receiver.server.bind_local()) as link:
            link.wait_ready(WAIT_S)
            receiver.stop()
            receiver.server.close()
            assert link.wait_stopped(2.0)


def test_start_reaches_those_present_and_those_to_come(receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with link_to(address, source="early") as early:
        early.wait_ready(WAIT_S)
        assert not early.wait_started(0)
        receiver.server.start()
        assert early.wait_started(WAIT_S)
        with link_to(address, source="late") as late:
            late.wait_ready(WAIT_S)
            assert late.wait_started(WAIT_S)


def test_an_endpoint_in_use_is_named(receiver: Listening) -> None:
    endpoint = receiver.server.bind("tcp://127.0.0.1:*")
    with pytest.raises(endpoints.BindError, match=f"{endpoint}: the address is in use"):
        receiver.server.bind(endpoint)


@pytest.mark.skipif(not _has_ipv6(), reason="this host has no IPv6 loopback")
def test_capture_may_connect_by_ipv6(receiver: Listening) -> None:
    address = IngestAddress(receiver.server.bind("tcp://[::1]:*"))
    with link_to(address) as link:
        link.wait_ready(WAIT_S)


def test_a_wrong_token_is_refused(receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with link_to(IngestAddress(address.endpoint, "guess", address.server_key)) as link:
        with pytest.raises(LinkError, match="wrong token"):
            link.wait_ready(WAIT_S)
        assert link.refused
    assert receiver.server.stats()["rejected"] == 1
    assert receiver.events == []


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    with (
        link_to(IngestAddress(f"ipc://{tmp_path}/none")) as link,
        pytest.raises(LinkError, match="no answer"),
    ):
        link.wait_ready(0.2)


def test_an_endpoint_that_is_none_is_refused_at_once() -> None:
    link = link_to(IngestAddress("tcp://127.0.0.1"))
    with pytest.raises(ConfigError, match=r"cannot connect to 'tcp://127\.0\.0\.1'"):
        link.__enter__()


def test_the_newest_process_takes_over_and_counters_go_on(receiver: Listening) -> None:
    address = receiver.server.bind_local()
    script = """
import sys
from stream.transport.sender import CaptureLink
from stream.transport.protocol import IngestAddress
with CaptureLink(IngestAddress.from_environment(sys.argv[1]), source="cam0", modalities=("video",)) as link:
    link.wait_ready(60)
    link.send_state("video", "live", restarts=2)
    link.wait_stopped()
    print(link.refused)
"""
    command = [sys.executable, "-P", "-c", script, address.endpoint]
    environment = os.environ | address.environment()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert receiver.wait_events(State)[0].restarts == 2
        with link_to(address, ("video",)) as link:
            link.wait_ready(WAIT_S)
            link.send_state("video", "live", restarts=1)
            assert receiver.wait_events(State, 2)[1].restarts == 3  # 2, and 1 of the new process
            assert process.communicate(timeout=WAIT_S)[0].strip() == b"True"


def test_a_process_that_is_killed_falls_silent(
    receiver: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.transport.peers.SILENCE_S", 1.5)
    address = receiver.server.bind_local()
    script = """
import sys
from stream.transport.sender import CaptureLink
from stream.transport.protocol import IngestAddress
with CaptureLink(IngestAddress.from_environment(sys.argv[1]), source="cam0", modalities=("video",)) as link:
    link.wait_stopped()
"""
    command = [sys.executable, "-P", "-c", script, address.endpoint]
    with subprocess.Popen(command, env=os.environ | address.environment()) as process:
        receiver.wait_events(Hello)
        process.kill()
        assert str(process.pid) in receiver.wait_events(PeerLost)[0].detail
        lost = receiver.events_of(PeerLost)[0].hello
    assert (lost.source, lost.modalities) == ("cam0", ("video",))


def bind_once_free(server: Receiver, endpoint: str) -> None:
    """Within a process: a thread of libzmq's own closes what was closed before."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            server.bind(endpoint)
        except endpoints.BindError:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        else:
            return


def test_a_server_that_is_replaced_is_found_again(tmp_path: Path) -> None:
    """As when `emostream run` is started anew while a capture on another host goes on."""
    endpoint = f"ipc://{tmp_path}/i"
    with link_to(IngestAddress(endpoint), ("audio",), clock="media") as link:
        with Listening() as first:
            first.server.bind(endpoint)
            link.wait_ready(WAIT_S)
            first.stop()
            first.server._peers._peers.clear()  # it dies without a word
        with Listening() as second:
            bind_once_free(second.server, endpoint)
            second.wait_events(Hello)
            link.send_pcm(start_s=1.0, pcm=np.zeros(16, np.float32))
            second.wait_events(PcmHeader)


# Hostile peers


@contextlib.contextmanager
def raw_peer(endpoint: str, **options) -> Iterator[zmq.Socket]:
    peer = zmq.Context.instance().socket(zmq.DEALER)
    peer.linger = 0
    for name, value in options.items():
        setattr(peer, name, value)
    peer.connect(endpoint)
    try:
        yield peer
    finally:
        peer.close()


def expect(receiver: Listening, **counts: int) -> None:
    receiver.wait_for(lambda: counts.items() <= receiver.server.stats().items(), str(counts))


def hello(receiver: Listening, peer: zmq.Socket, token: str, **fields) -> None:
    known = len(receiver.of(Hello))
    message = {
        "source": "evil",
        "modalities": ("video",),
        "pid": 1,
        "clock": "host",
        "lossless": False,
    }
    peer.send_multipart([encode(Hello(**(message | fields), token=token)), b""])
    receiver.wait_events(Hello, known + 1)


def test_whatever_a_stranger_sends_is_counted_and_harms_nobody(receiver: Listening) -> None:
    address = receiver.server.bind_local()
    with link_to(address, ("audio",), clock="media") as honest, raw_peer(address.endpoint) as peer:
        honest.wait_ready(WAIT_S)
        peer.send(b"one part")
        peer.send_multipart([b"", b""])
        peer.send_multipart([b"\x01 garbage", b""])
        peer.send_multipart([b"\x09" + encode(End())[1:], b""])
        peer.send_multipart([encode(FrameHeader(1.0, 0, 2, 3)), b"x" * 18])
        peer.send_multipart([encode(Ping(1.0)), b""])
        peer.send_multipart([encode(Start()), b""])  # not for a peer to say
        expect(receiver, malformed=3, version=2, unauthenticated=2)
        assert peer.poll(1000 * WAIT_S)
        assert isinstance(decode_downstream(peer.recv_multipart()[0]), Reject)
        honest.send_pcm(start_s=1.0, pcm=np.zeros(16, np.float32))
        receiver.wait_events(PcmHeader)
        assert {event.source for event in receiver.events} == {"cam0"}


def test_what_an_accepted_peer_gets_wrong_is_counted(receiver: Listening) -> None:
    address = receiver.server.bind_local()
    now_s = time.perf_counter()
    with raw_peer(address.endpoint) as peer:
        hello(receiver, peer, address.token)
        peer.send_multipart([encode(FrameHeader(now_s, 0, 2, 3)), b"too short"])
        peer.send_multipart([encode(PcmHeader(now_s, 0)), bytes(8)])  # it announced video
        peer.send_multipart([encode(State("audio", "live")), b""])
        peer.send_multipart([encode(FrameHeader(now_s + 3600, 0, 2, 3)), bytes(18)])
        peer.send_multipart([encode(FrameHeader(now_s, 0, 2, 3, now_s + 3600)), bytes(18)])
        peer.send_multipart([encode(Watermark("video", now_s + 3600)), b""])
        expect(receiver, malformed=3, future=3)
        peer.send_multipart([encode(FrameHeader(now_s, 0, 2, 3)), bytes(18)])
        peer.send_multipart([encode(FrameHeader(now_s, 4, 2, 3)), bytes(18)])
        receiver.wait_events(FrameHeader, 2)
        assert receiver.server.stats()["lost_in_transport"] == 3


@pytest.mark.parametrize(
    "payload", [b"", bytes(7), bytes(4 * 160_001), np.float32([0, np.nan]).tobytes()]
)
def test_sound_that_is_no_sound_is_malformed(receiver: Listening, payload: bytes) -> None:
    address = receiver.server.bind_local()
    with raw_peer(address.endpoint) as peer:
        hello(receiver, peer, address.token, modalities=("audio",))
        peer.send_multipart([encode(PcmHeader(1.0, 0)), payload])
        expect(receiver, malformed=1)
        assert receiver.of(PcmHeader) == []


def test_an_oversized_message_costs_its_sender_the_connection() -> None:
    with Listening(max_message_bytes=100_000) as receiver:
        address = receiver.server.bind_local()
        with (
            link_to(address, ("audio",), clock="media") as honest,
            raw_peer(address.endpoint) as peer,
        ):
            honest.wait_ready(WAIT_S)
            hello(receiver, peer, address.token)
            peer.send_multipart([encode(FrameHeader(1.0, 0, 300, 300)), bytes(270_000)])
            expect(receiver, disconnected=1)
            honest.send_pcm(start_s=1.0, pcm=np.zeros(16, np.float32))
            receiver.wait_events(PcmHeader)
            assert receiver.of(FrameHeader) == []


def test_bytes_that_are_not_zeromq_are_counted(receiver: Listening) -> None:
    endpoint = receiver.server.bind("tcp://127.0.0.1:*")
    port = int(endpoint.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
        receiver.wait_for(lambda: bool(receiver.server.stats()))
    with link_to(IngestAddress(endpoint)) as link:
        link.wait_ready(WAIT_S)


def test_too_many_peers_are_refused(receiver: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.transport.peers.MAX_PEERS", 1)
    address = receiver.server.bind_local()
    with link_to(address, source="one") as one:
        one.wait_ready(WAIT_S)
        with (
            link_to(address, source="two") as two,
            pytest.raises(LinkError, match="connected already"),
        ):
            two.wait_ready(WAIT_S)
        assert not one.stopped


# Endpoints


def test_the_local_endpoint_is_private_and_leaves_nothing() -> None:
    with Receiver(step_s=0.5) as server:
        address = server.bind_local()
        if not address.endpoint.startswith("ipc://"):
            pytest.skip("no ipc on this platform")
        directory = Path(address.endpoint.removeprefix("ipc://")).parent
        assert directory.stat().st_mode & 0o777 == 0o700
        assert len(address.endpoint) < 100
    assert not directory.exists()


def test_what_a_killed_predecessor_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    stale = tmp_path / f"{local_endpoint.PREFIX}{int(gone.stdout)}-abc"
    alive = tmp_path / f"{local_endpoint.PREFIX}{os.getpid()}-abc"
    foreign = tmp_path / "emostream-notes-abc"
    for directory in (stale, alive, foreign):
        directory.mkdir()
        (directory / "i").touch()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    endpoint = local_endpoint.LocalEndpoint()
    endpoint.remove()
    assert not stale.exists()
    assert alive.exists()
    assert foreign.exists()


@pytest.mark.skipif(os.name != "posix", reason="ipc is used on POSIX only")
def test_a_long_temporary_path_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(long))
    endpoint = local_endpoint.LocalEndpoint()
    assert endpoint.directory is not None
    assert endpoint.directory.parent == Path("/tmp")
    endpoint.remove()
    assert list(long.iterdir()) == []


def test_without_ipc_loopback_tcp_is_encrypted_and_authenticated(
    receiver: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_endpoint.zmq, "has", lambda what: what != "ipc")
    address = receiver.server.bind_local()
    assert address.endpoint.startswith("tcp://127.0.0.1:")
    assert len(address.server_key) == 40
    with link_to(address) as link:
        link.wait_ready(WAIT_S)
    with (
        link_to(IngestAddress(address.endpoint, address.token)) as plain,
        pytest.raises(LinkError, match="no answer"),
    ):
        plain.wait_ready(0.5)
    receiver.wait_for(lambda: receiver.server.stats().get("handshake_failed", 0) > 0)


def test_other_hosts_enter_by_curve_keys_on_the_allow_list(tmp_path: Path) -> None:
    security.keygen(tmp_path)
    server_keys = security.load_server_keys(tmp_path)
    client = security.load_client_keys(tmp_path)
    public, secret = zmq.curve_keypair()
    with (
        security.authenticator(zmq.Context.instance(), server_keys),
        Listening() as receiver,
    ):
        endpoint = receiver.server.bind(
            "tcp://127.0.0.1:*",
            secure=lambda socket: security.configure_server(socket, server_keys),
        )
        local = receiver.server.bind_local()
        key = client.server_public.decode()
        known = IngestAddress(endpoint, "", key, client.public.decode(), client.secret.decode())
        stranger = IngestAddress(endpoint, "", key, public.decode(), secret.decode())
        with link_to(known, source="remote") as link, link_to(local, source="here") as here:
            link.wait_ready(WAIT_S)
            here.wait_ready(WAIT_S)
        with link_to(stranger) as link, pytest.raises(LinkError, match="no answer"):
            link.wait_ready(0.5)
        assert {event.source for event in receiver.events_of(Hello)} == {"remote", "here"}


def test_secrets_travel_by_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    address = IngestAddress("ipc:///tmp/x/i", "token", "key", "mine", "secret")
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    assert IngestAddress.from_environment(address.endpoint) == address
    assert IngestAddress.from_environment(address.endpoint) == IngestAddress(address.endpoint)
    assert "token" not in repr(address)
    assert "secret" not in repr(address)
    with pytest.raises(ConfigError, match="udp"):
        IngestAddress.from_environment("udp://127.0.0.1:1")


# Another host's clock


def test_times_are_converted_to_the_server_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server process whose clock is shifted stands for another host's."""
    script = """
import sys, time
real, shift = time.perf_counter, 5000.25
time.perf_counter = lambda: real() + shift
from stream.transport.receiver import Receiver
from stream.transport.protocol import FrameHeader, PcmHeader, State
with Receiver(step_s=0.5) as server:
    print(server.bind("tcp://127.0.0.1:*"), flush=True)
    seen = {}
    while len(seen) < 3:
        for event in server.poll(100):
            match event.message:
                case FrameHeader(time_s):
                    seen["frame"] = time_s
                case PcmHeader(start_s):
                    seen["pcm"] = start_s
                case State(clock_uncertainty_s=uncertainty_s):
                    seen["state"] = uncertainty_s
    print(seen["frame"], seen["pcm"], seen["state"], server.stats(), flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        with link_to(IngestAddress(server.stdout.readline().strip())) as link:
            link.wait_ready(WAIT_S)
            assert link.clock_offset_s == pytest.approx(5000.25, abs=0.05)
            captured_s = time.perf_counter()
            link.send_state("video", "live")
            link.send_frame(time_s=captured_s, rgb=RGB)
            link.send_pcm(start_s=captured_s, pcm=np.zeros(160, np.float32))
            frame_s, pcm_s, uncertainty_s, stats = server.stdout.readline().split(maxsplit=3)
            server.communicate("")
    assert 0 < float(uncertainty_s) < 0.05
    assert float(frame_s) - captured_s == pytest.approx(5000.25, abs=2 * float(uncertainty_s))
    assert float(pcm_s) == pytest.approx(float(frame_s), abs=1e-3)
    assert stats.strip() == "{}"


def test_a_peer_that_was_silent_is_heard_again(receiver: Listening, monkeypatch) -> None:
    """A process that was suspended says hello again, on the same connection; what it sends then counts."""
    monkeypatch.setattr("stream.transport.peers.SILENCE_S", 0.5)
    address = receiver.server.bind_local()
    hello = Hello(
        source="cam0",
        modalities=("video",),
        pid=os.getpid(),
        clock="host",
        lossless=False,
        token=address.token,
    )
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(address.endpoint)
        socket.send_multipart([encode(hello), b""])
        receiver.wait_events(Hello)
        receiver.wait_events(PeerLost)
        socket.send_multipart([encode(hello), b""])
        receiver.wait_events(Hello, 2)
        socket.send_multipart([encode(Watermark("video", time.perf_counter())), b""])
        receiver.wait_events(Watermark)
