"""What capture processes send, sorted by source into windowers."""

import logging
import time
from collections.abc import Mapping

from stream.transport.events import (
    Connected,
    Ended,
    EpochSet,
    Frame,
    IngestEvent,
    Marked,
    Pcm,
    PeerLost,
    StateChanged,
)
from stream.transport.protocol import Clock, Stream
from stream.windows.config import InferenceConfig
from stream.windows.smoothing import Rolling
from stream.windows.source_state import Losses, SourceState
from stream.windows.windower import Windower

_log = logging.getLogger(__name__)


class Intake:
    """Fills the windowers of all sources. Not thread-safe: its owner holds one lock around every call.

    Args:
        config: Windows and smoothing.
        sources: Sources that shall come, by name, with their clock.
        dynamic: Whether sources that are not among them may connect (capture on other hosts).

    Attributes:
        states: What is known of each source.
    """

    def __init__(self, config: InferenceConfig, sources: Mapping[str, Clock], dynamic: bool):
        self._config = config
        self._dynamic = dynamic
        self._live = False
        self.states = {name: self._new_state(name, clock) for name, clock in sources.items()}

    def go_live(self) -> None:
        """The model is warm: what devices deliver counts from now on."""
        self._live = True
        for state in self.states.values():
            state.state, state.detail = "live", ""
            if state.windower is None and state.clock == "host":
                self._open(state)

    def fail(self, name: str, stream: Stream, problem: str) -> None:
        """A capture process ended for good: its stream is waited for no longer."""
        state = self.states[name]
        state.failed = state.clock == "media"
        state.losses.setdefault(stream, Losses()).problem = problem
        if state.windower is not None:
            state.windower.mark_lost(stream)

    def take(self, event: IngestEvent) -> None:
        """Handle one event of the ingest server's."""
        state = self.states.get(event.source)
        if state is None:
            if not isinstance(event, Connected) or not self._dynamic:
                _log.warning("data of %s, which was not asked for, is ignored", event.source)
                return
            state = self.states[event.source] = self._new_state(event.source, event.clock)
        windower = state.windower
        match event:
            case Connected():
                self._connect(state, event)
            case StateChanged():
                # A device that delivers may still have something to say: it is muted, or falls behind.
                problem = event.detail
                if event.state != "live":
                    problem = ": ".join(filter(None, (f"{event.stream} {event.state}", problem)))
                state.losses[event.stream] = Losses(
                    event.dropped_frames, event.dropped_audio_ms, event.restarts, problem
                )
                state.clock_uncertainty_s = event.clock_uncertainty_s
                state.note_losses()
                if windower is not None and event.state in ("lost", "retrying"):
                    windower.mark_lost(event.stream)
            case EpochSet():
                state.epoch_s = event.epoch_s
            case PeerLost():
                for stream in event.streams:
                    state.losses.setdefault(stream, Losses()).problem = event.detail
                    if windower is not None:
                        windower.mark_lost(stream)
            case _ if windower is None:
                return  # devices deliver before the model is warm; nothing is lost that a window would hold
            case Frame():
                state.frames.count(event.received_s)
                state.uncredited += 1
                windower.add_frame(event.time_s, event.rgb, event.mark_s)
            case Pcm():
                state.uncredited += 1
                windower.add_pcm(event.start_s, event.pcm, event.gap_samples)
            case Marked():
                windower.mark(event.stream, event.time_s)
            case Ended():
                windower.mark_end(event.streams)

    def _connect(self, state: SourceState, event: Connected) -> None:
        state.streams.update(event.streams)
        state.clock, state.lossless = event.clock, event.lossless
        for stream in event.streams:
            state.losses.setdefault(stream, Losses()).problem = ""
            state.lateness_s[stream] = event.lateness_s
        state.pids.setdefault(event.streams, set()).add(event.pid)
        if state.windower is None and (self._live or state.clock == "media"):
            self._open(state)
        elif state.windower is not None:
            for stream in event.streams:
                state.windower.set_lateness(stream, event.lateness_s)

    def _open(self, state: SourceState) -> None:
        """The source's data count from now on: files from their beginning, devices from this moment."""
        # A device that is absent at first may come; a file's streams are all known when it connects.
        streams: tuple[Stream, ...] = ("video", "audio")
        if state.clock == "media":
            streams = tuple(sorted(state.streams, reverse=True))
        config = self._config
        state.windower = Windower(
            state.name,
            window_s=config.window_s,
            num_frames=config.num_frames,
            hop_steps=config.hop_steps,
            streams=streams,
            origin_s=0.0 if state.clock == "media" else time.perf_counter(),
            lossless=state.lossless,
        )
        for stream, lateness_s in state.lateness_s.items():
            state.windower.set_lateness(stream, lateness_s)
        state.note_losses()

    def _new_state(self, name: str, clock: Clock) -> SourceState:
        rolling = Rolling(self._config.smoothing_s, self._config.hysteresis)
        detail = "" if self._live else f"loading {self._config.model_name}"
        return SourceState(name=name, clock=clock, lossless=False, rolling=rolling, detail=detail)

    def note_ready(self, now_s: float) -> None:
        """Remember since when each source's next window has been ready."""
        for state in self.states.values():
            if state.windower is not None and state.ready_s is None:
                source_s = state.source_time_s(now_s)
                if state.windower.ready(source_s):
                    state.ready_s = now_s
