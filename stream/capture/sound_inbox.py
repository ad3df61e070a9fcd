"""Between PortAudio's callback, which may not wait, and the thread that processes its blocks."""

import threading
import time
from collections import deque
from typing import Any

import numpy as np

from stream.capture.sound_track import Block

QUEUED_BLOCKS = 200  # 4 s
SILENT_AFTER_S = 10.0


class SoundInbox:
    """Where PortAudio's callback leaves its blocks."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self._blocks: deque[tuple[int, float, float, float, bool, bytes]] = deque(
            maxlen=QUEUED_BLOCKS
        )
        self._index = 0

    def callback(self, samples: Any, frames: int, moment: Any, flags: Any) -> None:
        """Copy a block; called by PortAudio, which waits for us."""
        now_s = time.perf_counter()
        self._blocks.append(
            (
                self._index,
                now_s,
                moment.inputBufferAdcTime,
                moment.currentTime,
                flags.input_overflow,
                bytes(samples),
            )
        )
        self._index += frames
        self.arrived.set()

    def take(self, channels: int) -> list[Block]:
        """Every block that waits, oldest first."""
        blocks = []
        while self._blocks:
            index, callback_s, adc_s, stream_now_s, overflowed, samples = self._blocks.popleft()
            blocks.append(
                Block(
                    index=index,
                    pcm=np.frombuffer(samples, np.float32).reshape(-1, channels),
                    callback_s=callback_s,
                    adc_s=adc_s,
                    stream_now_s=stream_now_s,
                    overflowed=overflowed,
                )
            )
        return blocks


class DigitalSilence:
    """Notices a microphone that delivers nothing but zeros, which a converter that works never does."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def detail(self, block: Block) -> str:
        """What to say about it; empty while there is sound."""
        if block.pcm.any():
            self._since_s = None
            return ""
        if self._since_s is None:
            self._since_s = block.callback_s
        if block.callback_s - self._since_s < SILENT_AFTER_S:
            return ""
        return (
            "microphone: nothing but zeros; it is muted, or this program is not allowed to use it "
            "(macOS: System Settings, Privacy & Security)"
        )
