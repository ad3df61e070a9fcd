"""A whole clip in memory: the script acted by face and voice. A pure function of (seed, split, index)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.manifest import Row
from training.synth import clay, render, vocoder, voice
from training.synth.acting import acting_meta, evident_cues
from training.synth.actors import Split
from training.synth.microphone import record
from training.synth.motion import plan_motion
from training.synth.script import Script, write_script
from training.synth.speech import Speech, plan_speech

FRAMES_HZ = 12.5
SIZE_PX = 128

Frames = NDArray[np.uint8]
Pcm = NDArray[np.float32]


def clip_name(index: int) -> str:
    """Path of a clip's file inside its corpus folder."""
    return f"clips/{index:06d}.mp4"


def clip_row(script: Script) -> Row:
    """The manifest row of a clip; its path is relative to the corpus folder."""
    return Row(
        path=Path(clip_name(script.index)),
        label=script.label,
        split=script.split,
        actor=script.actor.id,
        start_s=0.0,
        end_s=script.duration_s,
        cues=evident_cues(script.acting, script.label),
        meta=acting_meta(script.acting),
    )


def frame_times(script: Script) -> NDArray[np.float64]:
    """Instants of the frames of the clip's file, (F,) seconds."""
    return np.arange(int(script.duration_s * FRAMES_HZ)) / FRAMES_HZ


def film(
    script: Script, speech: Speech, times_s: NDArray[np.float64], size_px: int = SIZE_PX
) -> Frames:
    """The picture at the instants `times_s` (F,): (F, size_px, size_px, 3) uint8 RGB."""
    if script.split == "ood":
        return clay.render(script, plan_motion(script, speech, clay.pose_times(times_s)), size_px)
    return render.render(script, plan_motion(script, speech, times_s), size_px)


def action_units_at(script: Script, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """Expression at instants (F,), as acted, seen or not: (F, len(ACTION_UNITS)) in [0, 1].

    The target of a frame-level regression; the row's cues hold the apex only.
    """
    motion = plan_motion(script, plan_speech(script), np.asarray(times_s, dtype=float))
    return motion.action_units.astype(np.float32)


def speak(script: Script, speech: Speech, rng: np.random.Generator | None = None) -> Pcm:
    """The sound of the clip: (S,) float32 mono 16 kHz in [-1, 1].

    Args:
        script: The clip's.
        speech: What is said.
        rng: Of the voice's breath and cycles; the script's own if None.
    """
    synthesise = vocoder.synthesise if script.split == "ood" else voice.synthesise
    dry = synthesise(speech, script.actor.voice.tract_scale, rng or script.rng("voice"))
    return record(script, dry)


def render_clip(
    seed: int,
    split: Split,
    index: int,
    *,
    times_s: NDArray[np.float64] | None = None,
    size_px: int = SIZE_PX,
    video: bool = True,
    audio: bool = True,
) -> tuple[Frames, Pcm, Row]:
    """Render one clip of a corpus in memory, without a codec.

    It is what the file of that clip holds before compression: the same pictures and sound whatever
    else is rendered, in whatever order. On several processes give each one OpenMP thread.

    Args:
        seed: The corpus seed.
        split: `train`, `test` or `ood`.
        index: The clip's number.
        times_s: (F,) instants to show, seconds in [0, row.end_s]; None for every frame of the file.
        size_px: Width and height.
        video: False skips the picture: no frames.
        audio: False skips the sound: no samples.

    Returns:
        frames (F, size_px, size_px, 3) uint8 RGB, pcm (S,) float32 mono 16 kHz, and the row.
    """
    script = write_script(seed, split, index)
    speech = plan_speech(script)
    times = frame_times(script) if times_s is None else np.asarray(times_s, dtype=float)
    if video and len(times):
        frames = film(script, speech, times, size_px)
    else:
        frames = np.zeros((0, size_px, size_px, 3), np.uint8)
    pcm = speak(script, speech) if audio else np.zeros(0, np.float32)
    return frames, pcm, clip_row(script)
