"""The microphone class and process against a PulseAudio server of the test's own, through PortAudio."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from emostream.errors import ConfigError, DeviceError, DeviceTimeout
from stream.capture import microphone_driver
from stream.capture.microphone import Microphone, MicrophoneConfig
from stream.capture.microphone_driver import SoundInput, choose
from stream.capture.sound_inbox import DigitalSilence
from stream.capture.sound_track import Block, SoundChunk
from stream.transport.events import Event
from stream.transport.protocol import PCM_RATE_HZ, PcmHeader, State
from tests.stream.rigs import (
    WAIT_S,
    CaptureProcess,
    PipeMicrophone,
    SoundServer,
    until,
)

SPEAKER = "speaker"


@pytest.fixture
def sounds(sound_server: SoundServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoundServer]:
    """The sound server, as this process's own."""
    for name, value in sound_server.environment.items():
        monkeypatch.setenv(name, value)
    microphone_driver.rescan()
    yield sound_server
    monkeypatch.delenv("PULSE_SOURCE", raising=False)


def noise(indices: NDArray[np.int64]) -> NDArray[np.float32]:
    return (np.random.default_rng(int(indices[0])).normal(0, 0.001, len(indices))).astype(
        np.float32
    )


def clicks(indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Noise, and 10 ms of a loud tone at the start of every second, at 48 kHz."""
    within = indices % 48000
    tone = np.where(within < 480, 0.5 * np.cos(2 * np.pi * 1000 * within / 48000), 0.0)
    return (tone + noise(indices)).astype(np.float32)


def tone(rate_hz: int, frequency_hz: float = 440.0) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * frequency_hz * np.arange(rate_hz) / rate_hz)).astype(
        np.float32
    )


def listen(microphone: Microphone, seconds: float) -> list[SoundChunk]:
    chunks: list[SoundChunk] = []
    while sum(len(chunk.pcm) for chunk in chunks) < seconds * PCM_RATE_HZ:
        chunks.append(microphone.read(timeout_ms=1000 * WAIT_S))
    return chunks


def drain(microphone: Microphone) -> None:
    try:
        while True:
            microphone.read(timeout_ms=0)
    except DeviceTimeout:
        pass


def gaps(chunks: list[SoundChunk]) -> list[float]:
    """Seconds between the end of each chunk and the start of the next."""
    ends = [chunk.start_s + len(chunk.pcm) / PCM_RATE_HZ for chunk in chunks]
    return [chunk.start_s - end for chunk, end in zip(chunks[1:], ends, strict=False)]


def onsets(chunks: list[SoundChunk]) -> list[float]:
    """Capture times at which the sound becomes loud."""
    found: list[float] = []
    for chunk in chunks:
        for at in np.flatnonzero(np.abs(chunk.pcm) > 0.25):
            time_s = chunk.start_s + at / PCM_RATE_HZ
            if not found or time_s - found[-1] > 0.5:
                found.append(time_s)
    return found


def test_sound_is_stamped_with_its_capture_time(sounds: SoundServer) -> None:
    with (
        PipeMicrophone(sounds, clicks, rate_hz=48000) as source,
        Microphone(MicrophoneConfig()) as microphone,
    ):
        chunks = listen(microphone, 4.0)
        assert microphone.stats.rejected_adc_times >= 150  # of a sound server, every one
        assert microphone.status().state == "live"
        assert microphone.stats.lost_s == 0.0
    assert all(chunk.pcm.dtype == np.float32 for chunk in chunks)
    assert min(gaps(chunks)) > -1e-6  # nothing is sent twice
    heard_s = onsets(chunks)
    assert len(heard_s) >= 3
    # The sound at second k of the source was captured at start_s + k.
    off_s = [(time_s - source.start_s + 0.5) % 1.0 - 0.5 for time_s in heard_s]
    assert np.abs(off_s).max() < 0.25  # half a step of the grid, on a machine however busy


def test_sound_keeps_its_pitch_and_level(sounds: SoundServer) -> None:
    number = sounds.null_sink(SPEAKER, rate_hz=44100)
    try:
        with (
            sounds.playing(SPEAKER, tone(44100), 44100),
            Microphone(MicrophoneConfig(device="pulse:speaker.monitor")) as microphone,
        ):
            until(lambda: np.abs(listen(microphone, 0.02)[0].pcm).max() > 0.25)
            drain(microphone)
            chunks = listen(microphone, 1.2)
    finally:
        sounds.unload(number)
    pcm = np.concatenate([chunk.pcm for chunk in chunks])[:PCM_RATE_HZ]
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    assert np.argmax(spectrum) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_vanished_microphone_is_lost_and_is_found_again(sounds: SoundServer) -> None:
    number = sounds.null_sink(SPEAKER)
    try:
        with Microphone(MicrophoneConfig(device="pulse:speaker.monitor")) as microphone:
            listen(microphone, 0.2)
            sounds.unload(number)
            until(lambda: microphone.status().state == "lost")
            assert "no sound for 1 s" in microphone.status().detail
            until(lambda: microphone.status().state == "retrying")
            assert "no 'pulse:speaker.monitor'" in microphone.status().detail
            drain(microphone)
            with pytest.raises(DeviceTimeout, match=r"no sound within 0 ms; .*speaker"):
                microphone.read(timeout_ms=0)
            number = sounds.null_sink(SPEAKER)
            listen(microphone, 0.2)
            assert microphone.status().state == "live"
            assert microphone.status().restarts == 1
    finally:
        sounds.unload(number)


def test_microphone_that_delivers_nothing_is_lost_by_our_own_deadline(sounds: SoundServer) -> None:
    with (
        PipeMicrophone(sounds, noise) as source,
        Microphone(MicrophoneConfig()) as microphone,
    ):
        listen(microphone, 0.2)
        source.stall()
        until(lambda: microphone.status().state == "lost")
        source.resume()
        drain(microphone)
        listen(microphone, 0.2)
        assert microphone.status().state == "live"
        assert not microphone.stuck


def test_no_such_microphone_is_reported_with_what_there_is(sounds: SoundServer) -> None:
    with (
        PipeMicrophone(sounds, noise, name="desk"),
        Microphone(MicrophoneConfig(device="Jabra")) as microphone,
    ):
        until(lambda: microphone.status().state == "retrying")
        assert "'Jabra'" in microphone.status().detail
        assert "pulse:desk" in microphone.status().detail
        assert "emostream devices" in microphone.status().detail
        assert microphone.status().restarts == 0


def test_process_sends_continuous_sound_and_survives_loss(sounds: SoundServer) -> None:
    def is_state(state: str):
        return lambda event: isinstance(event.message, State) and event.message.state == state

    number = sounds.null_sink(SPEAKER)
    try:
        with CaptureProcess(
            "stream.capture.microphone",
            "--audio",
            "speaker.monitor",
            environment=sounds.environment,
        ) as capture:
            capture.hear(is_state("live"))
            heard: list[Event] = [
                capture.hear(lambda event: isinstance(event.message, PcmHeader)) for _ in range(40)
            ]
            starts_s = [event.message.start_s for event in heard]
            lengths_s = [len(event.data) / PCM_RATE_HZ for event in heard]
            ends_s = [start_s + s for start_s, s in zip(starts_s, lengths_s, strict=True)]
            for start_s, end_s in zip(starts_s[1:], ends_s, strict=False):
                assert start_s >= end_s - 1e-6
                assert start_s <= end_s + 0.05
            sounds.unload(number)
            assert "no sound" in capture.hear(is_state("lost")).message.detail
            number = sounds.null_sink(SPEAKER)
            assert capture.hear(is_state("live")).message.restarts == 1
            capture.hear(
                lambda event: (
                    isinstance(event.message, PcmHeader) and event.message.start_s > ends_s[-1]
                )
            )
            assert capture.quit() == 0
    finally:
        sounds.unload(number)


def test_portaudio_that_is_not_installed_is_named_with_its_remedy() -> None:
    """As on a fresh Debian: the wheel of sounddevice for Linux brings no library."""
    script = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "from stream.capture.microphone import *\n"
        "with Microphone(MicrophoneConfig()) as microphone: microphone.read(timeout_ms=60000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "DeviceError" in last
    assert "libportaudio2" in last
    assert "brew install portaudio" in last


def make(index: int, name: str, **options) -> SoundInput:
    defaults = {"option": str(index), "api": "ALSA", "channels": 2, "rate_hz": 44100}
    return SoundInput(index=index, name=name, **(defaults | options))


FOUND = [
    make(0, "HDA Intel: ALC257 (hw:0,0)"),
    make(3, "pulse", channels=32),
    make(4, "default", channels=32, is_default=True),
    make(
        3,
        "Blue Yeti",
        option="pulse:usb-yeti",
        pulse_source="usb-yeti",
        channels=1,
        rate_hz=48000,
        is_default=True,
    ),
    make(3, "Monitor of Blue Speaker", option="pulse:hdmi.monitor", pulse_source="hdmi.monitor"),
]


def test_default_takes_the_sound_servers_format_but_not_its_name() -> None:
    chosen = choose(FOUND, None)
    assert (chosen.index, chosen.option, chosen.pulse_source) == (4, "4", "")
    assert (chosen.name, chosen.channels, chosen.rate_hz) == ("Blue Yeti", 1, 48000)
    assert not chosen.has_adc_times
    assert choose(FOUND[:1], None) is FOUND[0]


def test_choice_by_index_option_source_and_part_of_a_name() -> None:
    assert choose(FOUND, 0) is FOUND[0]
    assert choose(FOUND, 3) is FOUND[1]
    assert choose(FOUND, "pulse:usb-yeti") is FOUND[3]
    assert choose(FOUND, "usb-yeti") is FOUND[3]
    assert choose(FOUND, "yeti") is FOUND[3]
    assert choose(FOUND, "PULSE") is FOUND[1]


def test_choice_that_fails_says_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"no 7; found 0 \(HDA Intel"):
        choose(FOUND, 7)
    with pytest.raises(ConfigError, match=r"'blue' is ambiguous: pulse:usb-yeti"):
        choose(FOUND, "blue")
    with pytest.raises(DeviceError, match="there is none; connect one"):
        choose([], None)


def test_ambiguous_name_is_the_users_error(sounds: SoundServer) -> None:
    with (
        PipeMicrophone(sounds, noise, name="desk-a"),
        PipeMicrophone(sounds, noise, name="desk-b"),
        Microphone(MicrophoneConfig(device="unix fifo")) as microphone,
        pytest.raises(ConfigError, match="ambiguous"),
    ):
        microphone.read(timeout_ms=1000 * WAIT_S)


def test_exact_silence_is_told_from_quiet() -> None:
    silence = DigitalSilence()

    def block(at_s: float, level: float) -> Block:
        return Block(
            index=0,
            pcm=np.full((10, 1), level, np.float32),
            callback_s=at_s,
            adc_s=0.0,
            stream_now_s=0.0,
        )

    assert [silence.detail(block(float(t), 0.0)) for t in range(10)] == [""] * 10
    assert "muted" in silence.detail(block(10.0, 0.0))
    assert silence.detail(block(11.0, 1e-5)) == ""
    assert silence.detail(block(12.0, 0.0)) == ""
    with pytest.raises(ConfigError, match="lost_after_s > 0"):
        MicrophoneConfig(lost_after_s=0)
