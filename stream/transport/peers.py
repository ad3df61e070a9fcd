"""Who is connected: the peers of a `Receiver`, and which of them serves which modality."""

import hmac
import time
from collections.abc import Callable, Iterator

import zmq

from stream.transport.events import Event, PeerLost
from stream.transport.ledger import Ledger, Peer
from stream.transport.protocol import Credit, Downstream, Hello, Modality, Reject, Start, Welcome

SILENCE_S = 5.0  # a peer that does not even ping is gone
INITIAL_CREDIT = 16  # messages; over a second of a file
MAX_PEERS = 64

Socket = zmq.Socket[bytes]


class PeerTable:
    """Accepts, replaces and forgets peers. Used from the polling thread only.

    Args:
        step_s: grid step, told to every peer.
        num_frames: grid points of a window, likewise.
        send: sends a message to a peer without waiting.
        count: counts and logs a refusal: reason, and text for a person.
    """

    def __init__(
        self,
        step_s: float,
        num_frames: int,
        send: Callable[[Socket, bytes, Downstream], object],
        count: Callable[[str, str], None],
    ) -> None:
        self._step_s = step_s
        self._num_frames = num_frames
        self._send = send
        self._count = count
        self._peers: dict[tuple[Socket, bytes], Peer] = {}
        self._owners: dict[tuple[str, Modality], tuple[Socket, bytes]] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._started = False
        self._checked_s = time.perf_counter()

    def __iter__(self) -> Iterator[tuple[Socket, bytes]]:
        return iter(self._peers)

    def find(self, router: Socket, identity: bytes) -> tuple[Peer, Ledger] | None:
        """The peer behind a connection and what is known of its source, None before an accepted hello."""
        peer = self._peers.get((router, identity))
        return None if peer is None else (peer, self._ledgers[peer.hello.source])

    def greet(self, router: Socket, identity: bytes, hello: Hello, token: str) -> Event | None:
        """Answer a hello, which must carry `token` if that is not empty; the event, if a new peer was accepted."""
        known = (router, identity) in self._peers
        refusal = ""
        if token and not hmac.compare_digest(hello.token.encode(), token.encode()):
            refusal = "wrong token"
        elif not known and len(self._peers) >= MAX_PEERS:
            refusal = f"{MAX_PEERS} capture processes are connected already"
        if refusal:
            self._count("rejected", f"ingest: refused process {hello.pid}: {refusal}")
            self._send(router, identity, Reject(refusal))
            return None
        peer = self._peers[router, identity] = Peer(hello, time.perf_counter())
        ledger = self._ledgers.setdefault(hello.source, Ledger(hello.source, self._step_s))
        if not known:
            self._replace(router, identity, hello, ledger)
        resume_s = ledger.resume_s(hello)
        welcome = Welcome(self._step_s, self._started, ledger.epoch_s, resume_s, self._num_frames)
        self._send(router, identity, welcome)
        if self._started:
            self._grant_first(router, identity, peer)
        if known:
            return None  # it asked again because our answer was slow
        return Event(hello=hello, message=hello, received_s=peer.heard_s)

    def _replace(self, router: Socket, identity: bytes, hello: Hello, ledger: Ledger) -> None:
        """The newest process owns its modalities: a killed one's connection may seem to outlive it."""
        for modality in hello.modalities:
            owner = self._owners.get((hello.source, modality))
            self._owners[hello.source, modality] = (router, identity)
            if owner in (None, (router, identity)):
                continue  # nobody's, or its own from before it fell silent
            old = self._peers.pop(owner, None)
            if old is not None and old.hello.pid == hello.pid:
                continue  # the same process, connected anew
            ledger.succeed(modality)
            if old is not None:
                self._send(*owner, Reject(f"replaced by process {hello.pid}"))

    def start(self) -> None:
        """Begin the pacing, for peers present and to come."""
        self._started = True
        for (router, identity), peer in self._peers.items():
            self._send(router, identity, Start())
            self._grant_first(router, identity, peer)

    def _grant_first(self, router: Socket, identity: bytes, peer: Peer) -> None:
        if peer.hello.lossless:
            self._send(router, identity, Credit(INITIAL_CREDIT))

    def grant(self, source: str, messages: int) -> None:
        """Let the lossless peers of a source send so many more frames or PCM chunks."""
        for (router, identity), peer in self._peers.items():
            if peer.hello.source == source and peer.hello.lossless:
                self._send(router, identity, Credit(messages))

    def find_silent(self, listened: bool) -> list[Event]:
        """Forget the peers that are gone.

        Args:
            listened: all that the peers have sent has been received; else it is us who were silent.
        """
        now_s = time.perf_counter()
        if not listened or now_s - self._checked_s > SILENCE_S / 2:
            for peer in self._peers.values():
                peer.heard_s = now_s
        self._checked_s = now_s
        events = []
        for key in [key for key, peer in self._peers.items() if now_s - peer.heard_s > SILENCE_S]:
            peer = self._peers.pop(key)
            if not peer.ended:
                lost = PeerLost(
                    f"capture process {peer.hello.pid} has been silent for {SILENCE_S:g} s"
                )
                events.append(Event(hello=peer.hello, message=lost, received_s=now_s))
        return events
