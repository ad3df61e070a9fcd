"""Pictures are sent while somebody asks for them by name."""

import io
import json

import numpy as np
import zmq
from PIL import Image

from stream.pubsub.messages import Status
from stream.pubsub.publisher import Publisher
from tests.media_factory import Video, write_media
from tests.stream.live_rig import live

RED = np.zeros((240, 640, 3), np.uint8)
RED[..., 0] = 255


def subscriber(context, endpoint, prefix):
    socket = context.socket(zmq.SUB)
    socket.rcvtimeo = 30_000
    socket.connect(endpoint)
    socket.subscribe(prefix)
    return socket


def status(detail):
    return Status(
        source="cam0", timestamp_s=1.0, unix_time_s=None, state="live", detail=detail,
        fps_in=2.0, hops_per_s=2.0, skipped=0, restarts=0, uptime_s=1.0,
    )  # fmt: skip


def settled(publisher, socket):
    """Wait until the publisher has seen the socket's subscriptions: its cache answers the last one."""
    publisher.publish(status("settled"))
    socket.subscribe("status.cam0")
    assert socket.recv_multipart()[0] == b"status.cam0"


def test_only_asking_by_name_counts_as_asking():
    with (
        zmq.Context() as context,
        Publisher("tcp://127.0.0.1:*") as publisher,
        subscriber(context, publisher.endpoint, "") as everything,
    ):
        settled(publisher, everything)
        assert not publisher.preview_wanted("cam0")
        with subscriber(context, publisher.endpoint, "preview.cam0") as asking:
            settled(publisher, asking)
            assert publisher.preview_wanted("cam0")
            assert not publisher.preview_wanted("cam1")
            publisher.publish_preview("cam0", 3.5, RED)
            message = asking.recv_multipart()
            while message[0] != b"preview.cam0":
                message = asking.recv_multipart()
        said = json.loads(message[1])
        assert said["timestamp_s"] == 3.5
        picture = Image.open(io.BytesIO(message[2]))
        assert picture.size == (said["width"], said["height"]) == (320, 120)
        red, green, blue = picture.getpixel((100, 60))
        assert red > 240
        assert max(green, blue) < 15


def test_the_live_pipeline_shows_what_it_sees(tmp_path):
    path = write_media(tmp_path / "clip.mp4", Video(duration_s=20, size=(64, 48)))
    with live("--source", str(path), "--reason-every-s", "0") as running, zmq.Context() as context:
        for prefix in ("preview.", "preview.clip"):
            with subscriber(context, running.endpoint, prefix) as asking:
                asking.rcvtimeo = 90_000
                topic, header, jpeg = asking.recv_multipart()
            assert topic == b"preview.clip"
            assert json.loads(header)["timestamp_s"] > 0
            assert Image.open(io.BytesIO(jpeg)).size == (64, 48)
        running.send()
        assert running.wait() == 0
