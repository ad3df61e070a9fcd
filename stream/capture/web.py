"""What an HTTP address gives when FFmpeg cannot open it: read by our own client, or said exactly."""

import http.client
import urllib.error
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    build_opener,
)

from emostream.errors import MediaError
from emostream.urls import hide_secrets

REMEDIES = {
    401: "; its name and password go before the host, as NAME:PASSWORD@HOST",
    403: "; does this user have the right to see it?",
    404: "; check the path",
}
WEB_PAGE = "text/html"


def open_multipart(url: str, timeout_s: float) -> "MultipartStream":
    """The motion JPEG that an HTTP address gives.

    Args:
        url: `http://` or `https://`, with name and password if it asks for them (Basic or Digest).
        timeout_s: how long connecting, and then each read, may take.

    Raises:
        MediaError: it gives something else, which the error names.
    """
    shown = hide_secrets(url)
    try:
        response = _ask(url, timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            remedy = REMEDIES.get(error.code, "")
            raise MediaError(f"{shown}: answers {error.code} {error.reason}{remedy}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise MediaError(
            f"{shown}: does not answer: {reason}; check the address, and that it can be reached from this host"
        ) from None
    kind = response.headers.get_content_type()
    if response.headers.get_content_maintype() == "multipart":
        return MultipartStream(response)
    with response:
        page = ", a web page: look in it for the address of the picture" if kind == WEB_PAGE else ""
        raise MediaError(
            f"{shown}: answers {response.status} with {kind}{page}; wanted a stream or a picture that FFmpeg can read"
        )


def _ask(url: str, timeout_s: float) -> Any:
    parts = urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    passwords = HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        name, password = unquote(parts.username), unquote(parts.password or "")
        passwords.add_password(None, address, name, password)
    opener = build_opener(HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords))
    return opener.open(address, timeout=timeout_s)


class MultipartStream:
    """A multipart response as FFmpeg can read it: beginning with a boundary.

    Cameras with the firmware of the ESP32-CAM send it behind each part only, so that the first has none.
    """

    format = "mpjpeg"

    def __init__(self, response: Any) -> None:
        self._response = response
        self._ahead = b""
        first = self.read(4096).lstrip()
        self._ahead = first if first.startswith(b"--") else b"--boundary\r\n" + first

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end, and when none come in time."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        try:
            data = self._response.read1(size)
        except (OSError, http.client.HTTPException):
            data = b""
        return bytes(data)

    def close(self) -> None:
        """Close the connection."""
        self._response.close()
