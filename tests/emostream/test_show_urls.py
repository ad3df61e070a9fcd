"""URLs are shown without what is secret in them."""

import av.error
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import EmostreamError, MediaError
from emostream.media import MediaReader, probe
from emostream.urls import hide_secrets

SHOWN = {
    "http://camera:8080/video.mjpg": "http://camera:8080/video.mjpg",
    "http://admin:secret@camera/": "http://…@camera/",
    "http://secret@camera": "http://…@camera",
    "rtsp://admin:sec@ret@camera:554/live": "rtsp://…@camera:554/live",
    "rtsp://admin:secret@[::1]:554/live": "rtsp://…@[::1]:554/live",
    "http://camera/?action=stream&token=secret": "http://camera/?action=…&token=…",
    "http://camera/video?secret": "http://camera/video?…",
    "http://camera/video?secret&secret": "http://camera/video?…&…",
    "http://camera/v#access_token=secret": "http://camera/v#access_token=…",
    "rtsp://camera/user=admin&password=sec/ret&channel=1.sdp?": "rtsp://camera/user=…&password=…&channel=…?",
    # It may be the password that holds the slash, or the question mark.
    "http://admin:sec/ret@camera/": "http://…",
    "http://admin:sec?ret@camera/": "http://…",
    "http://camera/?to=secret@example.org": "http://…",
    "admin:secret@192.168.1.5/video": "…@192.168.1.5/video",  # the scheme was forgotten
    "tcp://127.0.0.1:5556": "tcp://127.0.0.1:5556",
    "clip of 3:20, by a@b.mp4": "clip of 3:20, by a@b.mp4",
    "wanted a URL (http://, rtsp://…)": "wanted a URL (http://, rtsp://…)",
    "[Errno 111] refused: 'http://a:secret@c:1/x?t=secret'; see tcp://c:1": (
        "[Errno 111] refused: 'http://…@c:1/x?t=…'; see tcp://c:1"
    ),
    "http://secret@c/v: no video; rtsp://secret@d/w, not tried": (
        "http://…@c/v: no video; rtsp://…@d/w, not tried"
    ),
}


@pytest.mark.parametrize("text", SHOWN)
def test_a_text_shows_its_urls_without_their_secrets(text: str) -> None:
    assert hide_secrets(text) == SHOWN[text]
    assert hide_secrets(SHOWN[text]) == SHOWN[text]


@given(
    login=st.text("secr:@/?#&=%.;,'\"()", min_size=1, max_size=12),
    value=st.text("secr:@/?#&=%.;,'\"()", min_size=1, max_size=12),
)
def test_no_password_and_no_token_shows(login: str, value: str) -> None:
    url = f"http://me:KEY{login}KEY@camera/v?token=KEY{value}KEY"
    for text in (url, f"'{url}': failed", f"{url}, {url}"):
        assert "KEY" not in hide_secrets(text)
        assert hide_secrets(hide_secrets(text)) == hide_secrets(text)


def test_no_error_holds_them() -> None:
    for kind in [EmostreamError, *_below(EmostreamError)]:
        if kind.__init__ is EmostreamError.__init__:
            assert "secret" not in str(kind("http://secret@camera/?t=secret: failed"))


def _below(kind: type) -> list[type]:
    return [c for sub in kind.__subclasses__() for c in (sub, *_below(sub))]


@pytest.mark.parametrize("read", [probe, MediaReader])
def test_ffmpegs_texts_do_not_show_them(read) -> None:  # type: ignore[no-untyped-def]
    """A port that refuses; FFmpeg's own error says the whole URL."""
    with pytest.raises(MediaError) as caught:
        read("http://me:secret@127.0.0.1:9/v?token=secret")
    assert "secret" not in str(caught.value)
    assert "http://…@127.0.0.1:9/v?token=…" in str(caught.value)
    assert isinstance(caught.value.__cause__, av.error.FFmpegError)
