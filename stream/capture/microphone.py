"""Microphones through PortAudio: a capture process, and the `Microphone` class it is made of."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from emostream.errors import ConfigError, DeviceError
from stream.capture import microphone_driver
from stream.capture.device import CaptureDevice, index_or_name, run_device
from stream.capture.microphone_driver import BLOCK_S, SoundInput
from stream.capture.process import capture_parser, run_capture
from stream.capture.sound_inbox import DigitalSilence, SoundInbox
from stream.capture.sound_track import SoundChunk, SoundTrack
from stream.transport.clocks import NO_ADC, AdcLimits
from stream.transport.sender import CaptureLink

QUEUED_CHUNKS = 200
FIRST_SOUND_S = 5.0  # a sound server may wake a source for seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class MicrophoneConfig:
    """How to use one microphone.

    Attributes:
        device: PortAudio's index, a name or part of one, `pulse:SOURCE`, or None for the default.
        lost_after_s: without a callback for so long, the microphone is lost and opened anew.
    """

    device: int | str | None = None
    lost_after_s: float = 1.0

    def __post_init__(self) -> None:
        if self.lost_after_s <= 0:
            raise ConfigError(f"microphone: wanted lost_after_s > 0, found {self.lost_after_s:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundStats:
    """How well a microphone keeps time, since it was last opened.

    Attributes:
        drift_ppm: how much faster than nominal it samples.
        rejected_adc_times: ADC times of the driver that were impossible.
        overflows: losses that the driver reported.
        lost_s: sound lost in those and in our own queue.
    """

    drift_ppm: float = 0.0
    rejected_adc_times: int = 0
    overflows: int = 0
    lost_s: float = 0.0


class Microphone(CaptureDevice[SoundChunk]):
    """One microphone: PortAudio's callback fills a queue, a thread makes timed 16 kHz mono of it.

    The callback only copies. Loss is detected by time alone: PortAudio goes on calling a stream active whose device is
    gone. A lost microphone is looked for anew, with growing pauses, until it is back. One at a time in a process, as
    looking for devices starts PortAudio anew.

    Drop policy: a queue of 4 s for blocks to be processed and one of `QUEUED_CHUNKS` to be read; when they are full the
    oldest are dropped, and the gap shows in the times of the chunks.

    Where PortAudio is not installed, or several microphones have the name, `read` raises that error.

    Args:
        config: which microphone, and when it counts as lost.
    """

    def __init__(self, config: MicrophoneConfig) -> None:
        super().__init__(
            name=f"microphone {'(default)' if config.device is None else config.device}",
            modalities=("audio",),
            lost_after_s=config.lost_after_s,
            queued=QUEUED_CHUNKS,
        )
        self.config = config
        self._stats = SoundStats()

    @property
    def stats(self) -> SoundStats:
        """How well it keeps time."""
        return self._stats

    # The reader thread: PortAudio is loaded, opened and closed in it, as some interfaces of Windows demand.

    def _run(self) -> None:
        with self._driver:
            microphone_driver.load_portaudio()
        scanned = True
        while not self._closing.is_set():
            try:
                with self._driver:
                    if not scanned:
                        microphone_driver.rescan()
                    found = microphone_driver.inputs()
                problem = self._capture(microphone_driver.choose(found, self.config.device))
            except DeviceError as error:
                problem = str(error)
            scanned = False
            if not self._closing.is_set():
                self._retry(problem)

    def _capture(self, device: SoundInput) -> str:
        """Open the device and process what it delivers until it is lost or we are closed."""
        inbox = SoundInbox()
        with self._driver:
            stream, rate_hz, channels = microphone_driver.open_stream(device, inbox.callback)
        self._opened += 1
        try:
            limits = AdcLimits(latency_s=stream.latency) if device.has_adc_times else NO_ADC
            track = SoundTrack(rate_hz, limits)
            return self._drain(inbox, track, channels)
        finally:
            with self._driver:
                stream.abort(ignore_errors=True)
                stream.close(ignore_errors=True)

    def _drain(self, inbox: SoundInbox, track: SoundTrack, channels: int) -> str:
        self._hear()
        allowed_s = max(self.config.lost_after_s, FIRST_SOUND_S)
        silence = DigitalSilence()
        while not self._closing.is_set():
            inbox.arrived.wait(2 * BLOCK_S)
            inbox.arrived.clear()
            blocks = inbox.take(channels)
            if blocks:
                self._hear()
                allowed_s = self.config.lost_after_s
                self._backoff.reset()
            elif self._silent_s("audio") > allowed_s:
                return self._problem("audio")
            for block in blocks:
                self._publish("audio", track.add(block), silence.detail(block))
            self._stats = SoundStats(
                drift_ppm=track.clock.drift_ppm,
                rejected_adc_times=track.clock.rejected,
                overflows=track.overflows,
                lost_s=track.lost_s,
            )
        return "closed"


def capture_microphone(link: CaptureLink, config: MicrophoneConfig) -> None:
    """Send a microphone's sound and state through `link` until it is stopped.

    Raises:
        DeviceError: PortAudio is not installed.
    """
    microphone = Microphone(config)

    def send_next(timeout_ms: float) -> None:
        chunk = microphone.read(timeout_ms)
        link.send_pcm(start_s=chunk.start_s, pcm=chunk.pcm)

    run_device(link, microphone, send_next)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the capture process."""
    parser = capture_parser("stream.capture.microphone", "captures one microphone")
    parser.add_argument("--audio", type=index_or_name, help="name or index; default: the system's")
    parser.add_argument("--lost-after-s", type=float, default=MicrophoneConfig().lost_after_s)
    args = parser.parse_args(argv)

    def capture(link: CaptureLink) -> None:
        config = MicrophoneConfig(device=args.audio, lost_after_s=args.lost_after_s)
        capture_microphone(link, config)

    return run_capture(args, capture, modalities=("audio",))


if __name__ == "__main__":
    sys.exit(main())
