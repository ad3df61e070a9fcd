"""The server by real sockets: what it hands on, and what it refuses."""

import contextlib
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from emostream.errors import ConfigError
from stream.pubsub.publisher import Publisher
from stream.sockets.endpoints import BindError
from stream.web.config import WebConfig
from stream.web.relay import MAX_PAGES, QUEUE_MESSAGES, Page
from stream.web.serve import serving
from tests.stream.events import label, reasoning, status
from tests.stream.rigs import until

TIMEOUT_S = 30


def page_of(link: str, **options: object) -> ClientConnection:
    """A WebSocket as a page of `link` opens it."""
    parts = urlsplit(link)
    options.setdefault("origin", f"{parts.scheme}://{parts.netloc}")
    scheme = "wss" if parts.scheme == "https" else "ws"
    return connect(f"{scheme}://{parts.netloc}/events", proxy=None, **options)


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def closing_code(page: ClientConnection) -> int | None:
    """Why the server closes a page, which it must do."""
    try:
        while True:
            page.recv(timeout=TIMEOUT_S)
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else closed.rcvd.code


def next_of(socket: ClientConnection, wanted: str) -> dict:
    """The next message of a topic."""
    while True:
        message = json.loads(socket.recv(timeout=TIMEOUT_S))
        if message.get("topic") == wanted:
            return message


def settled(publisher: Publisher, link: str) -> None:
    """Publish until the server has heard of it: its subscription is in place from then on."""

    def heard() -> bool:
        publisher.publish(status(source="settled"))
        return get(f"{link}healthz")[0] == 200

    until(heard)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_messages_are_handed_on_unchanged(encoding: str) -> None:
    with (
        Publisher("tcp://127.0.0.1:*", encoding=encoding) as publisher,
        serving(WebConfig(connect=publisher.endpoint, port=0)) as link,
    ):
        settled(publisher, link)
        with page_of(link) as page:
            sent = publisher.publish(label(window_id=9))
            got = next_of(page, "emotion.cam0.label")
    assert got["seq"] == sent.seq
    assert got["published_s"] == sent.published_s
    assert got["scores"] == sent.scores
    assert got["window"] == {"id": 9, "start_s": 0.5, "end_s": 4.5}


def test_a_newcomer_gets_the_last_minutes(publisher: Publisher, link: str) -> None:
    settled(publisher, link)
    with page_of(link) as first:
        for window_id in (8, 9, 10):
            publisher.publish(label(window_id=window_id))
        publisher.publish(reasoning(window_id=9))
        next_of(first, "emotion.cam0.reasoning")
        with page_of(link) as second:
            history = json.loads(second.recv(timeout=TIMEOUT_S))["history"]
    assert [message["window"]["id"] for message in history] == [8, 9, 10, 9]


def test_pictures_go_to_the_pages_that_show_them(publisher: Publisher, link: str) -> None:
    settled(publisher, link)
    with page_of(link) as shows, page_of(link) as does_not:
        shows.send(json.dumps({"pictures": ["cam0"]}))
        until(lambda: publisher.preview_wanted("cam0"))
        publisher.publish_preview("cam0", 4.5, np.zeros((120, 160, 3), np.uint8))
        picture = b""
        while not isinstance(picture, bytes) or not picture:
            picture = shows.recv(timeout=TIMEOUT_S)
        length = int.from_bytes(picture[:4], "big")
        header = json.loads(picture[4 : 4 + length])
        assert (header["source"], header["timestamp_s"], header["width"]) == ("cam0", 4.5, 160)
        assert picture[4 + length :].startswith(b"\xff\xd8")
        publisher.publish(label(window_id=9))
        message = ""
        while '"emotion.cam0.label"' not in message:
            message = does_not.recv(timeout=TIMEOUT_S)
            assert isinstance(message, str)
    until(lambda: not publisher.preview_wanted("cam0"))


@pytest.mark.parametrize(
    "sent", ["[]", "{}", '{"pictures": ["../x"]}', '{"pictures": [1]}', "[" * 2000, b"\x00\xff"]
)
def test_garbage_closes_the_page_and_nothing_else(
    publisher: Publisher, link: str, sent: str | bytes
) -> None:
    settled(publisher, link)
    with page_of(link) as good, page_of(link) as bad:
        bad.send(sent)
        closing_code(bad)
        publisher.publish(label(window_id=9))
        assert next_of(good, "emotion.cam0.label")["window"]["id"] == 9


def test_an_oversized_or_hasty_page_is_closed(publisher: Publisher, link: str) -> None:
    with page_of(link) as page:
        page.send(json.dumps({"pictures": ["x" * 30] * 1000}))
        assert closing_code(page) in (None, 1009)  # message too big
    with page_of(link) as page:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                page.send('{"pictures": []}')
        assert closing_code(page) == 4400


def test_a_page_that_never_reads_loses_its_oldest() -> None:
    page = Page()
    for number in range(QUEUE_MESSAGES + 5):
        page.put(str(number))
    assert page.dropped == 5
    assert page._waiting[0] == "5"


def test_a_page_that_never_reads_stalls_nobody(publisher: Publisher, link: str) -> None:
    """Its socket is full long before what is published ends; another page still gets the last of it at once."""
    settled(publisher, link)
    think = "x" * 100_000
    with page_of(link, max_queue=1) as asleep, page_of(link) as reads:
        for number in range(300):
            publisher.publish(reasoning(window_id=8 + number, think=think))
            while json.loads(reads.recv(timeout=TIMEOUT_S)).get("seq") != number:
                pass
        publisher.publish(label(window_id=9))
        assert next_of(reads, "emotion.cam0.label")["window"]["id"] == 9
        asleep.close_socket()


@pytest.mark.parametrize("origin", ["http://evil.example", None, "null"])
def test_foreign_pages_get_nothing(link: str, origin: str | None) -> None:
    with page_of(link, origin=origin) as page:
        assert closing_code(page) == 4403


def test_a_name_that_was_pointed_here_gets_nothing(link: str) -> None:
    code, _, body = get(link, Host="evil.example")
    assert code == 403
    assert b"unknown host" in body


def test_no_more_pages_than_are_served(link: str) -> None:
    with contextlib.ExitStack() as pages:
        for _ in range(MAX_PAGES):
            pages.enter_context(page_of(link))
        until(lambda: json.loads(get(f"{link}healthz")[2])["pages"] == MAX_PAGES)
        assert closing_code(pages.enter_context(page_of(link))) == 4429


def test_the_token_is_asked_for(publisher: Publisher) -> None:
    with serving(WebConfig(connect=publisher.endpoint, port=0, token="täglich 7")) as link:
        base = link.split("?")[0]
        assert get(base)[0] == 403
        assert get(f"{base}?token=wrong")[0] == 403
        assert get(f"{base}page/app.js")[0] == 403
        assert get(f"{base}metrics")[0] == 403
        assert get(f"{base}healthz")[0] == 503  # nothing is published; a probe needs no token
        assert get(f"{base}metrics", Authorization="Bearer wrong")[0] == 403
        with page_of(base) as page:
            assert closing_code(page) == 4403


def test_answers_carry_the_headers_that_browsers_obey(link: str) -> None:
    for path in ("", "page/app.js", "metrics", "healthz", "nothing"):
        headers = {name.lower(): value for name, value in get(f"{link}{path}")[1].items()}
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_metrics_count_what_was_published(publisher: Publisher, link: str) -> None:
    settled(publisher, link)
    publisher.publish(label(window_id=9))
    publisher.publish(reasoning(window_id=9))
    publisher.publish(status(state="degraded"))

    def text() -> str:
        return get(f"{link}metrics")[2].decode()

    until(lambda: 'emostream_state{source="cam0",state="degraded"} 1.0' in text())
    assert 'emostream_labels_total{label="happy",source="cam0"} 1.0' in text()
    assert 'emostream_reasonings_total{agrees="true",source="cam0"} 1.0' in text()
    assert (
        'emostream_label_latency_seconds_bucket{le="0.1",source="cam0",stage="total"} 1.0' in text()
    )


def test_metrics_without_the_page(publisher: Publisher) -> None:
    with serving(WebConfig(connect=publisher.endpoint, port=0, page=False)) as link:
        assert get(link)[0] == 404
        assert get(f"{link}metrics")[0] == 200


def test_tls(publisher: Publisher, certificate: tuple[Path, Path, Path]) -> None:
    cert, key, authority = certificate
    config = WebConfig(connect=publisher.endpoint, port=0, certificate=cert, key=key)
    with serving(config) as link:
        assert link.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(authority))
        with page_of(link, ssl=trusting) as page:
            until(lambda: publisher.publish(label(window_id=9)) is not None and _heard(page))


def _heard(page: ClientConnection) -> bool:
    try:
        return b"emotion.cam0.label" in page.recv(timeout=0.2, decode=False)
    except TimeoutError:
        return False


def test_wrong_settings_are_refused(tmp_path: Path, certificate: tuple[Path, Path, Path]) -> None:
    endpoint = "tcp://127.0.0.1:1"
    with pytest.raises(ConfigError, match="--insecure"):
        WebConfig(connect=endpoint, host="0.0.0.0")
    with pytest.raises(ConfigError, match="--tls-cert and --tls-key"):
        WebConfig(connect=endpoint, host="0.0.0.0", token="x")
    with pytest.raises(ConfigError, match="go together"):
        WebConfig(connect=endpoint, certificate=certificate[0])
    with pytest.raises(ConfigError, match="--port 70000"):
        WebConfig(connect=endpoint, port=70000)
    WebConfig(connect=endpoint, host="0.0.0.0", insecure=True)
    with (
        pytest.raises(ConfigError, match="--tls-cert"),
        serving(
            WebConfig(connect=endpoint, port=0, certificate=certificate[1], key=certificate[0])
        ),
    ):
        pass
    with serving(WebConfig(connect=endpoint, port=0)) as link:
        taken = urlsplit(link).port
        assert taken is not None
        with (
            pytest.raises(BindError, match="--port"),
            serving(WebConfig(connect=endpoint, port=taken)),
        ):
            pass
