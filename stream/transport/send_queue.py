"""What waits in a capture process to be sent."""

from collections import deque
from dataclasses import dataclass

from stream.transport.protocol import FrameHeader, PcmHeader, State, Upstream, Watermark

MAX_NOTICES = 256  # they pile up only while there is no connection


@dataclass(frozen=True, slots=True)
class Item:
    """One message; `audio_ms` is the duration of a PCM chunk, else 0."""

    header: Upstream
    payload: bytes | memoryview = b""
    audio_ms: float = 0.0

    @property
    def is_data(self) -> bool:
        """A frame or a PCM chunk: what may be dropped, and what costs credit."""
        return isinstance(self.header, FrameHeader | PcmHeader)


class SendQueue:
    """First in, first out, and bounded for each kind of data.

    Drop policy of `put_dropping`: beyond `max_frames` frames the oldest frame goes, beyond `max_audio_ms` of sound the
    oldest chunk; both are counted. Of notices, watermarks and device states, the newest `MAX_NOTICES` are kept.

    Attributes:
        dropped_frames: frames dropped so far.
        dropped_audio_ms: milliseconds of sound dropped so far.
    """

    def __init__(self, max_frames: int, max_audio_ms: float) -> None:
        self.dropped_frames = 0
        self.dropped_audio_ms = 0.0
        self._max_frames = max_frames
        self._max_audio_ms = max_audio_ms
        self._items: deque[Item] = deque()
        self._frames = 0
        self._notices = 0
        self._audio_ms = 0.0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether one more frame or chunk would be dropped."""
        return self._frames >= self._max_frames or self._audio_ms >= self._max_audio_ms

    @property
    def head(self) -> Item:
        """The oldest item."""
        return self._items[0]

    def put(self, item: Item) -> None:
        """Append without regard to the bounds; for those who have waited for `full` to be false."""
        self._items.append(item)
        self._account(item, 1)

    def put_dropping(self, item: Item) -> None:
        """Append, then drop the oldest of its kind while there is too much of it."""
        self.put(item)
        while self._frames > self._max_frames:
            self._drop_oldest(FrameHeader)
            self.dropped_frames += 1
        while self._audio_ms > self._max_audio_ms:
            self.dropped_audio_ms += self._drop_oldest(PcmHeader).audio_ms
        while self._notices > MAX_NOTICES:
            self._drop_oldest(Watermark, State)

    def pop(self) -> Item:
        """Remove and return the oldest item."""
        item = self._items.popleft()
        self._account(item, -1)
        return item

    def _drop_oldest(self, *kinds: type) -> Item:
        at = next(i for i, item in enumerate(self._items) if isinstance(item.header, kinds))
        item = self._items[at]
        del self._items[at]
        self._account(item, -1)
        return item

    def _account(self, item: Item, sign: int) -> None:
        self._frames += sign * isinstance(item.header, FrameHeader)
        self._notices += sign * isinstance(item.header, Watermark | State)
        self._audio_ms += sign * item.audio_ms
        if not self._items:
            self._audio_ms = 0.0  # rounding must not add up
