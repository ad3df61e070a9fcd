"""What capture processes send, sorted by source into windowers."""

import logging
import time
from collections.abc import Mapping

from emostream.errors import ConfigError
from stream.transport.events import Event, PeerLost
from stream.transport.protocol import (
    Clock,
    End,
    Epoch,
    FrameHeader,
    Hello,
    Modality,
    PcmHeader,
    State,
    Watermark,
)
from stream.windows.config import InferenceConfig
from stream.windows.person_names import check_person_names
from stream.windows.smoothing import Rolling
from stream.windows.source_state import Losses, SourceState
from stream.windows.windower import Windower

_log = logging.getLogger(__name__)


class Sorter:
    """Fills the windowers of all sources. Not thread-safe: its owner holds one lock around every call.

    Args:
        config: Windows and smoothing.
        sources: Sources that shall come, by name, with their clock.
        dynamic: Whether sources that are not among them may connect (capture on other hosts).

    Attributes:
        states: What is known of each source.

    Raises:
        ConfigError: So many people of a source cannot have names.
    """

    def __init__(self, config: InferenceConfig, sources: Mapping[str, Clock], dynamic: bool):
        check_person_names(sources, config.people)
        self._config = config
        self._dynamic = dynamic
        self._live = False
        self._most_samples: int | None = None
        self.states = {name: self._new_state(name, clock) for name, clock in sources.items()}

    def go_live(self, most_samples: int) -> None:
        """The model is warm, and hears so many samples at a time: what devices deliver counts from now on."""
        self._live = True
        self._most_samples = most_samples
        for state in self.states.values():
            state.state, state.detail = "live", ""
            if state.windower is None and state.clock == "host":
                self._open(state)
            elif state.windower is not None:
                state.windower.limit_sound(most_samples)

    def fail(self, name: str, modality: Modality, problem: str) -> None:
        """A capture process ended for good: its modality is waited for no longer."""
        state = self.states[name]
        state.gave_up.add(modality)
        state.losses.setdefault(modality, Losses()).problem = problem
        if state.windower is not None:
            state.windower.mark_lost(modality)

    def take(self, event: Event) -> None:
        """Handle one event of the receiver's."""
        state, message = self.states.get(event.source), event.message
        if state is None:
            if not isinstance(message, Hello) or not self._dynamic:
                _log.warning("data of %s, which was not asked for, is ignored", event.source)
                return
            try:
                check_person_names((*self.states, event.source), self._config.people)
            except ConfigError as error:
                _log.warning("data of %s is ignored: %s", event.source, error)
                return
            state = self.states[event.source] = self._new_state(event.source, message.clock)
        windower = state.windower
        match message:
            case Hello() as hello:
                self._connect(state, hello)
            case State() as device:
                # A device that delivers may still have something to say: it is muted, or falls behind.
                problem = device.detail
                if device.state != "live":
                    problem = ": ".join(
                        filter(None, (f"{device.modality} {device.state}", problem))
                    )
                state.losses[device.modality] = Losses(
                    device.dropped_frames, device.dropped_audio_ms, device.restarts, problem
                )
                state.clock_uncertainty_s = device.clock_uncertainty_s
                state.note_losses()
                if windower is not None and device.state in ("lost", "retrying"):
                    windower.mark_lost(device.modality)
            case Epoch(epoch_s):
                state.epoch_s = epoch_s
            case PeerLost(detail):
                for modality in event.hello.modalities:
                    losses = state.losses.setdefault(modality, Losses())
                    if modality not in state.gave_up:  # else it has said why
                        losses.problem = detail
                    if windower is not None:
                        windower.mark_lost(modality)
            case _ if windower is None:
                return  # devices deliver before the model is warm; nothing is lost that a window would hold
            case FrameHeader() as frame:
                state.frames.count(event.received_s)
                state.uncredited += 1
                windower.add_frame(frame.time_s, event.data, frame.watermark_s)
            case PcmHeader() as chunk:
                state.uncredited += 1
                windower.add_pcm(chunk.start_s, event.data, chunk.gap_samples)
            case Watermark(modality, time_s):
                windower.watermark(modality, time_s)
            case End():
                windower.mark_end(event.hello.modalities)

    def _connect(self, state: SourceState, hello: Hello) -> None:
        if hello.clock != state.clock:
            # A URL turned out to give a recording: its times are not those that a live stream would have had.
            state.modalities, state.windower, state.ready_s = set(), None, None
        state.modalities.update(hello.modalities)
        state.gave_up.difference_update(hello.modalities)
        state.clock, state.lossless = hello.clock, hello.lossless
        for modality in hello.modalities:
            state.losses.setdefault(modality, Losses()).problem = ""
            state.lateness_s[modality] = hello.lateness_s
        state.pids.setdefault(hello.modalities, set()).add(hello.pid)
        if state.windower is None and (self._live or state.clock == "media"):
            self._open(state)
        elif state.windower is not None:
            for modality in hello.modalities:
                state.windower.set_lateness(modality, hello.lateness_s)

    def _open(self, state: SourceState) -> None:
        """The source's data count from now on: files from their beginning, devices from this moment."""
        # A device that is absent at first may come; a file's modalities are all known when it connects.
        modalities: tuple[Modality, ...] = ("video", "audio")
        if state.clock == "media":
            modalities = tuple(sorted(state.modalities, reverse=True))
        config = self._config
        state.windower = Windower(
            state.name,
            window_s=config.window_s,
            num_frames=config.num_frames,
            hop_steps=config.hop_steps,
            modalities=modalities,
            origin_s=0.0 if state.clock == "media" else time.perf_counter(),
            lossless=state.lossless,
        )
        if self._most_samples is not None:
            state.windower.limit_sound(self._most_samples)
        for modality, lateness_s in state.lateness_s.items():
            state.windower.set_lateness(modality, lateness_s)
        state.note_losses()

    def person(self, state: SourceState, name: str) -> SourceState:
        """What is known of a person of a source; the first has the source's name."""
        if name == state.name:
            return state
        if name not in state.people:
            state.people[name] = state.person(name, self._rolling())
        return state.people[name]

    def _rolling(self) -> Rolling:
        return Rolling(self._config.smoothing_s, self._config.hysteresis)

    def _new_state(self, name: str, clock: Clock) -> SourceState:
        detail = "" if self._live else f"loading {self._config.model_name}"
        return SourceState(
            name=name, clock=clock, lossless=False, rolling=self._rolling(), detail=detail
        )

    def note_ready(self, now_s: float) -> None:
        """Remember since when each source's next window has been ready."""
        for state in self.states.values():
            if state.windower is not None and state.ready_s is None:
                source_s = state.source_time_s(now_s)
                if state.windower.ready(source_s):
                    state.ready_s = now_s
