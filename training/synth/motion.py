"""How the face moves: action units, blinks, lips, gaze, head and camera at any instants of a clip.

Every track is a closed form of time, so that eight frames of a clip are the same pictures as those eight among sixty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.synth.acting import ACTION_UNITS, FaceActing
from training.synth.script import Script
from training.synth.speech import GRID_HZ, Speech

Array = NDArray[np.float64]

AU = {name: i for i, name in enumerate(ACTION_UNITS)}
_BLINK_S = 0.11


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Tracks at F instants.

    Attributes:
        action_units: (F, len(ACTION_UNITS)) intensities in [0, 1], expression only.
        blink: (F,) 0 open to 1 shut.
        gaze: (F, 2) right and down, -1 to 1.
        speak: (F, 3) lips by speech: opening, rounding (-1 to 1), closure.
        yaw, pitch, roll: (F,) head, radians; to the viewer's right, down, clockwise.
        centre: (F, 2) of the head in frame widths, (0.5, 0.5) is the middle.
        scale: (F,) height of the head over that of the frame.
        times_s: (F,) the instants.
        home, home_scale: (2,) and one number, centre and scale of the resting head; the same whatever
            instants were asked for.
    """

    action_units: Array
    blink: Array
    gaze: Array
    speak: Array
    yaw: Array
    pitch: Array
    roll: Array
    centre: Array
    scale: Array
    times_s: Array
    home: Array
    home_scale: float


def _smoothstep(x: Array) -> Array:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _drift(t: Array, rng: np.random.Generator, *, hz: float, size: float) -> Array:
    """A smooth wander of standard deviation `size` around 0: four sinusoids of random phase."""
    rates = hz * rng.uniform(0.4, 1.6, 4)
    phases = 2 * np.pi * rng.random(4)
    waves = np.sin(2 * np.pi * rates * t[:, None] + phases)
    return np.asarray(size * np.sqrt(0.5) * waves.sum(1))


def expression(face: FaceActing, t: Array, rng: np.random.Generator) -> Array:
    """Action units over time, (F, len(ACTION_UNITS)): onset, a living apex, and the fade."""
    n = len(ACTION_UNITS)
    peaks = np.array([face.action_units.get(name, 0.0) for name in ACTION_UNITS])
    lag = rng.uniform(-0.08, 0.08, n)
    rise = max(face.apex_s - face.onset_s, 0.08)
    fall = max(face.end_s - face.offset_s, 0.2)
    rest = float(rng.uniform(0.35, 0.7))
    up = _smoothstep((t[:, None] - face.onset_s - lag) / rise)
    down = 1 - (1 - rest) * _smoothstep((t[:, None] - face.offset_s - lag) / fall)
    life = (
        1 + np.stack([_drift(t, rng, hz=0.5, size=0.04) for _ in range(3)], 1)[:, np.arange(n) % 3]
    )
    return np.clip(peaks * up * down * life, 0.0, 1.0)


def _track(grid: Array, t: Array) -> Array:
    return np.interp(t, np.arange(len(grid)) / GRID_HZ, grid)


def plan_motion(script: Script, speech: Speech, times_s: Array) -> Motion:
    """Motion of a clip at the instants `times_s` (F,), clip clock."""
    rng = script.rng("motion")
    face = script.acting.face
    t = np.asarray(times_s, dtype=float)
    units = expression(face, t, rng)
    apex = np.zeros(len(t)) if not face.action_units else _smoothstep((t - face.onset_s) / 0.4)
    blinks = np.zeros(len(t))
    for at in face.blinks_s:
        blinks = np.maximum(blinks, 1 - np.abs(t - at) / _BLINK_S)
    # Where the camera stands and how the head is held at rest, then the movement.
    yaw = rng.normal(0, 0.14) + _drift(t, rng, hz=0.25, size=0.05)
    pitch = rng.normal(0, 0.06) + _drift(t, rng, hz=0.3, size=0.035)
    roll = rng.normal(0, 0.05) + _drift(t, rng, hz=0.25, size=0.03)
    nod = _track(speech.voicing, t - 0.05)
    pitch = pitch + 0.03 * nod * _drift(t, rng, hz=2.0, size=1.0)
    shy = float(rng.choice([-1.0, 1.0]))
    lean = {"disgust": 0.5, "fear": 0.3, "sad": 0.25}.get(face.emotion, 0.0)
    pitch = pitch + 0.30 * units[:, AU["AU54"]]
    yaw = np.clip(yaw + 0.22 * lean * shy * apex, -0.45, 0.45)
    roll = roll - 0.12 * lean * shy * apex
    near = {"angry": 0.05, "fear": -0.05, "surprise": -0.03, "disgust": -0.04}.get(face.emotion, 0)
    size = float(rng.uniform(0.68, 0.84))
    centre = np.array([0.5, 0.51]) + rng.normal(0, [0.035, 0.02])
    if face.state == "absent":
        side = float(rng.choice([-1.0, 1.0]))
        centre = centre + np.array([side * rng.uniform(0.75, 0.95), rng.uniform(-0.05, 0.15)])
    hand_held = rng.random() < 0.35
    shake = 0.008 if hand_held else 0.002
    gaze_away = _drift(t, rng, hz=0.4, size=0.22)
    gaze = np.stack([gaze_away, _drift(t, rng, hz=0.35, size=0.12) + units[:, AU["AU64"]]], 1)
    return Motion(
        action_units=units,
        blink=np.clip(blinks, 0.0, 1.0),
        gaze=np.clip(gaze, -1.0, 1.0),
        speak=np.stack([_track(x, t) for x in (speech.jaw, speech.rounding, speech.closure)], 1),
        yaw=yaw,
        pitch=np.clip(pitch, -0.3, 0.45),
        roll=roll,
        centre=centre
        + np.stack([_drift(t, rng, hz=0.5, size=shake + 0.006) for _ in range(2)], axis=1),
        scale=size * (1 + near * apex + _drift(t, rng, hz=0.2, size=0.012)),
        times_s=t,
        home=centre,
        home_scale=size,
    )
