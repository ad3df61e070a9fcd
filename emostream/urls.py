"""URLs: telling them from file names, and showing them without what is secret in them."""

import re
from pathlib import Path

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_IN_TEXT = re.compile(rf"({_SCHEME.pattern})(\S*?)([:;,.!)\]}}>'\"]*)(?=\s|$)")
_LOGIN = re.compile(r"[^\s/:]+:\S*@\S+$")  # of a URL whose scheme was forgotten
HIDDEN = "…"


def is_url(source: str | Path) -> bool:
    """Whether `source` is a URL rather than a file name."""
    return isinstance(source, str) and _SCHEME.match(source) is not None


def hide_secrets(text: str) -> str:
    """A URL, or a text with URLs in it, as it may be shown to anybody: logged, recorded, published.

    Of each URL the user part is left out, and every value that is given a name in its query, or in its path as some
    cameras have it: `rtsp://admin:secret@camera/live?token=abc` is shown as `rtsp://…@camera/live?token=…`. A URL that
    can be read in several ways, as when a password holds a slash, shows its scheme alone.
    """
    if "://" not in text:
        return _hide(text) if _LOGIN.match(text) else text
    return _IN_TEXT.sub(lambda url: url[1] + _hide(url[2]) + url[3], text)


def _hide(rest: str) -> str:
    """What follows a URL's scheme."""
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    host, path = rest[:end], rest[end:]
    if "@" in path:
        return HIDDEN  # does the password hold a slash, or the path an @?
    if "@" in host:
        host = f"{HIDDEN}@{host.rpartition('@')[2]}"
    path, query, values = re.sub(r"=[^&;?#]*", f"={HIDDEN}", path).partition("?")
    parts = (part if part.endswith(f"={HIDDEN}") else HIDDEN for part in values.split("&"))
    return host + path + query + ("&".join(parts) if values else "")
