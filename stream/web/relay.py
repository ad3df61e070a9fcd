"""From a publisher to any number of pages: one subscription, a memory for newcomers, a bounded queue for each page."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from stream.pubsub.client import AsyncEmotionClient
from stream.pubsub.messages import Event, Label, Reasoning
from stream.pubsub.preview import PREVIEW_PREFIX

QUEUE_MESSAGES = 256  # for a page that is slow; then the oldest are dropped
MEMORY_MESSAGES = 720  # of a source: labels of five minutes and their reasons
MAX_PAGES = 32


class PagesFull(Exception):
    """As many pages are open as are served at once."""


class Tap(AsyncEmotionClient):
    """A client that keeps the newest payload as it was published, in JSON."""

    payload = b""

    def _accept(self, frames: list[bytes]) -> Event | None:
        event = super()._accept(frames)
        if event is not None:
            packed = frames[1][:1] >= b"\x80"
            self.payload = (
                msgspec.json.encode(msgspec.msgpack.decode(frames[1])) if packed else frames[1]
            )
        return event


class Page:
    """One page that watches: what waits to be sent to it.

    Drop policy: a page that reads slowly loses its oldest messages, counted in `dropped`; nothing waits for it.

    Attributes:
        dropped: Messages that it was too slow for.
        pictures: Sources whose pictures it shows.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.pictures: frozenset[str] = frozenset()
        self._waiting: deque[str | bytes] = deque()
        self._filled = asyncio.Event()

    def put(self, message: str | bytes) -> None:
        """Queue a message: text as published, or bytes of a picture."""
        if len(self._waiting) == QUEUE_MESSAGES:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(message)
        self._filled.set()

    async def messages(self) -> AsyncIterator[str | bytes]:
        """What to send, as it comes, without end."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                yield self._waiting.popleft()


class Relay:
    """Follows one publisher and hands on what it says.

    Args:
        endpoint: Where the publisher listens.
        curve: Folder of the client's keys; None for a publisher without keys.
        observe: Called with every event, for metrics.
    """

    def __init__(self, endpoint: str, curve: Path | None, observe: Callable[[Event], None]) -> None:
        self.endpoint = endpoint
        self._curve = curve
        self._observe = observe
        self._pages: set[Page] = set()
        self._memory: dict[str, deque[tuple[str, str]]] = {}
        self._status: dict[str, str] = {}
        self._pictures: zmq.asyncio.Socket | None = None
        self._shown: Counter[str] = Counter()
        self.connected = False

    @property
    def pages(self) -> int:
        """Pages that are open."""
        return len(self._pages)

    async def run(self) -> None:
        """Follow the publisher until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            tasks.create_task(self._follow_pictures())

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """A page from its opening to its closing; begins with what is remembered.

        Raises:
            PagesFull: `MAX_PAGES` are open.
        """
        if len(self._pages) >= MAX_PAGES:
            raise PagesFull
        page = Page()
        for memory in self._memory.values():
            # One message, so that a long memory does not fill the queue.
            page.put('{"history":[' + ",".join(payload for _, payload in memory) + "]}")
        for payload in self._status.values():
            page.put(payload)
        self._pages.add(page)
        try:
            yield page
        finally:
            self.show_pictures(page, frozenset())
            self._pages.remove(page)

    def show_pictures(self, page: Page, sources: frozenset[str]) -> None:
        """A page shows pictures of these sources from now on; the publisher sends only those that somebody shows."""
        for source in sources - page.pictures:
            self._shown[source] += 1
            if self._shown[source] == 1 and self._pictures is not None:
                self._pictures.subscribe(f"{PREVIEW_PREFIX}{source}")
        for source in page.pictures - sources:
            self._shown[source] -= 1
            if not self._shown[source] and self._pictures is not None:
                self._pictures.unsubscribe(f"{PREVIEW_PREFIX}{source}")
        page.pictures = sources

    async def _follow_events(self) -> None:
        async with Tap(self.endpoint, curve=self._curve) as tap:
            async for event in tap:
                self.connected = True
                self._observe(event)
                text = tap.payload.decode()
                self._remember(event, text)
                for page in self._pages:
                    page.put(text)

    def _remember(self, event: Event, text: str) -> None:
        if not isinstance(event, Label | Reasoning):
            self._status[event.source] = text
            return
        memory = self._memory.setdefault(event.source, deque(maxlen=MEMORY_MESSAGES))
        if memory and memory[-1][0] != event.session:
            memory.clear()  # the publisher was started anew
        if isinstance(event, Label) or event.done:
            memory.append((event.session, text))

    async def _follow_pictures(self) -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.rcvhwm = 4  # only the newest are worth anything
            socket.maxmsgsize = 1 << 20
            if self._curve is not None:
                from stream.sockets import security

                security.configure_client(socket, security.load_client_keys(self._curve))
            socket.ipv6 = "[" in self.endpoint
            socket.connect(self.endpoint)
            for source, pages in self._shown.items():
                if pages:
                    socket.subscribe(f"{PREVIEW_PREFIX}{source}")
            self._pictures = socket
            try:
                while True:
                    frames = await socket.recv_multipart()
                    if len(frames) == 3:
                        self._show(frames[0], frames[1], frames[2])
            finally:
                self._pictures = None

    def _show(self, topic: bytes, header: bytes, jpeg: bytes) -> None:
        """A picture to the pages that show its source: length of the header (4 bytes, big-endian), header, JPEG."""
        source = topic.decode(errors="replace").removeprefix(PREVIEW_PREFIX)
        message = struct.pack(">I", len(header)) + header + jpeg
        for page in self._pages:
            if source in page.pictures:
                page.put(message)
