"""PortAudio's side of a microphone: finding, choosing and opening inputs on every platform."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from emostream.errors import ConfigError, DeviceError

BLOCK_S = 0.02
ALSA_LATENCY_S = 0.05  # PulseAudio delivers larger buffers in bursts
MAX_CHANNELS = 8  # ALSA's virtual devices offer any number
PULSE_PREFIX = "pulse:"
PULSE_DEVICES = ("pulse", "default", "pipewire")  # PortAudio inputs behind which is a sound server


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundInput:
    """One input that sound can be captured from.

    Attributes:
        index: PortAudio's number of the device.
        name: what it is called; for a PulseAudio source its description.
        option: what `--audio` takes to choose it.
        api: host interface, for example ALSA, Core Audio, Windows WASAPI or PulseAudio.
        channels, rate_hz: its native format.
        is_default: whether it is used when none is chosen.
        is_monitor: whether it records what a speaker plays.
        pulse_source: PulseAudio's name for it, empty if it is not one of its sources.
        has_adc_times: whether the driver knows when samples were converted. Through ALSA's plugin for sound servers
            PortAudio computes ages from -40 to 700 ms for samples that are 20 ms old, and they wander; the time of the
            callback is right to a millisecond there.
    """

    index: int
    name: str
    option: str
    api: str
    channels: int
    rate_hz: int
    is_default: bool = False
    is_monitor: bool = False
    pulse_source: str = ""
    has_adc_times: bool = True


def load_portaudio() -> Any:
    """The `sounddevice` module; it finds and initialises PortAudio as it is imported.

    Raises:
        DeviceError: the library is not installed or does not work.
    """
    try:
        import sounddevice
    except OSError as error:
        raise DeviceError(
            f"microphone: PortAudio cannot be loaded ({error}); install it: `sudo apt install "
            "libportaudio2` on Debian and Ubuntu, `brew install portaudio` on macOS"
        ) from None
    return sounddevice


def rescan() -> None:
    """Start PortAudio anew, as it looks for devices only then; no stream may be open.

    Raises:
        DeviceError: it does not start; to be tried again.
    """
    portaudio = load_portaudio()
    try:
        with silent_stderr():
            while portaudio._initialized:  # none after a start that failed
                portaudio._terminate()
            portaudio._initialize()
    except portaudio.PortAudioError as error:
        raise DeviceError(f"microphone: PortAudio does not start: {error}") from None


def inputs() -> list[SoundInput]:
    """Every input, PortAudio's own order, then the sources of a PulseAudio server.

    Raises:
        DeviceError: PortAudio cannot be loaded.
    """
    portaudio = load_portaudio()
    apis = portaudio.query_hostapis()
    default = portaudio.default.device[0]
    found = [
        SoundInput(
            index=device["index"],
            name=device["name"],
            option=str(device["index"]),
            api=apis[device["hostapi"]]["name"],
            channels=min(device["max_input_channels"], MAX_CHANNELS),
            rate_hz=round(device["default_samplerate"]),
            is_default=device["index"] == default,
            has_adc_times=device["name"] not in PULSE_DEVICES,
        )
        for device in portaudio.query_devices()
        if device["max_input_channels"] > 0
    ]
    return found + _pulse_inputs(found)


def _pulse_inputs(found: list[SoundInput]) -> list[SoundInput]:
    """PulseAudio's (or PipeWire's) sources, which ALSA shows to PortAudio as one device."""
    gate = next((device for device in found if device.name == "pulse"), None)
    if gate is None or shutil.which("pactl") is None:
        return []
    try:
        listing = _pactl("-f", "json", "list", "sources")
        sources = json.loads(listing)
        default = _pactl("get-default-source").strip()
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError):
        return []  # an older pactl, or no server: the device itself still works
    return [_pulse_input(gate, source, default) for source in sources]


def _pactl(*arguments: str) -> str:
    done = subprocess.run(
        ["pactl", *arguments], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout


def _pulse_input(gate: SoundInput, source: dict[str, Any], default: str) -> SoundInput:
    _, channels, rate = source["sample_specification"].split()  # "s16le 2ch 48000Hz"
    return SoundInput(
        index=gate.index,
        name=source["description"],
        option=PULSE_PREFIX + source["name"],
        api="PulseAudio",
        channels=int(channels.removesuffix("ch")),
        rate_hz=int(rate.removesuffix("Hz")),
        is_default=source["name"] == default,
        is_monitor=bool(source.get("monitor_source")),
        pulse_source=source["name"],
        has_adc_times=False,
    )


def choose(found: list[SoundInput], wanted: int | str | None) -> SoundInput:
    """The input that `--audio` means.

    Args:
        found: what `inputs` returned.
        wanted: PortAudio's index, an `option`, a name or part of one in any case, or None for the default.

    Raises:
        DeviceError: there is no such input at the moment.
        ConfigError: several inputs match the name.
    """
    if wanted is None:
        return _default(found)
    if isinstance(wanted, int):
        return _only([device for device in found if device.option == str(wanted)], found, wanted)
    exact = [device for device in found if wanted in (device.option, device.pulse_source)]
    part = wanted.casefold()
    named = exact or [device for device in found if device.name.casefold() == part]
    return _only(
        named or [device for device in found if part in device.name.casefold()], found, wanted
    )


def _default(found: list[SoundInput]) -> SoundInput:
    defaults = [device for device in found if device.is_default]
    if not found:
        raise DeviceError(
            "microphone: there is none; connect one, check that this user may use it (on Linux: group "
            "audio, or a running sound server), see `emostream devices`"
        )
    if not defaults:
        return found[0]
    chosen, source = defaults[0], defaults[-1]
    if source.pulse_source and chosen.name in PULSE_DEVICES:
        # The server's default may change while we run, so it is not asked for by name; its format
        # saves it from resampling what we resample again.
        return SoundInput(
            index=chosen.index,
            name=source.name,
            option=chosen.option,
            api=chosen.api,
            channels=source.channels,
            rate_hz=source.rate_hz,
            is_default=True,
            is_monitor=source.is_monitor,
            has_adc_times=False,
        )
    return chosen


def _only(matches: list[SoundInput], found: list[SoundInput], wanted: int | str) -> SoundInput:
    names = ", ".join(f"{device.option} ({device.name})" for device in matches or found) or "none"
    if not matches:
        raise DeviceError(
            f"microphone: there is no {wanted!r}; found {names}; see `emostream devices`"
        )
    # The same device shows under several interfaces on Windows; the first is PortAudio's choice.
    if len({device.name for device in matches}) > 1:
        raise ConfigError(f"microphone: {wanted!r} is ambiguous: {names}; choose one of these")
    return matches[0]


def open_stream(device: SoundInput, callback: Callable[..., None]) -> tuple[Any, int, int]:
    """Open and start a `sounddevice.RawInputStream` of float32 in the device's native format.

    Returns:
        The stream, its sampling rate in Hz, and its number of channels.

    Raises:
        DeviceError: it cannot be opened in any format.
    """
    portaudio = load_portaudio()
    # libpulse reads it as it connects; this process has no other business with PulseAudio.
    if device.pulse_source:
        os.environ["PULSE_SOURCE"] = device.pulse_source
    else:
        os.environ.pop("PULSE_SOURCE", None)
    formats = [
        (rate_hz, channels)
        for rate_hz in dict.fromkeys((device.rate_hz, 48000, 44100, 16000))
        for channels in dict.fromkeys((device.channels, 2, 1))
    ]
    problem = ""
    for rate_hz, channels in formats:
        try:
            with silent_stderr():
                stream = portaudio.RawInputStream(
                    device=device.index,
                    samplerate=rate_hz,
                    channels=channels,
                    dtype="float32",
                    blocksize=round(BLOCK_S * rate_hz),
                    latency=ALSA_LATENCY_S if device.api in ("ALSA", "PulseAudio") else "high",
                    callback=callback,
                )
                stream.start()
        except (portaudio.PortAudioError, ValueError) as error:
            problem = problem or str(error)
            continue
        return stream, rate_hz, channels
    raise DeviceError(
        f"microphone {device.name}: cannot be opened ({problem}); another program may be using it, or this "
        "user may not; see `emostream devices`"
    )


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Keep ALSA and PortAudio from writing to our standard error; what fails is raised anyway."""
    if sys.platform == "win32":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
