"""Synthetic faces: action units move what they should, and what is drawn can be seen."""

from dataclasses import replace

import numpy as np
import pytest

from training.synth import clay, face
from training.synth.acting import ACTION_UNITS
from training.synth.clip import FRAMES_HZ, action_units_at, frame_times, render_clip, speak
from training.synth.motion import AU, Motion, expression, plan_motion
from training.synth.render import build_shapes, render
from training.synth.script import STYLES as STYLE_NAMES
from training.synth.script import Script, write_script
from training.synth.shapes import project
from training.synth.speech import plan_speech
from training.synth.styles import STYLES


def still(**units: float) -> Motion:
    """One frame, a straight head, these action units."""
    values = np.zeros((1, len(ACTION_UNITS)))
    for name, value in units.items():
        values[0, AU[name]] = value
    one = np.zeros(1)
    return Motion(
        action_units=values, blink=one, gaze=np.zeros((1, 2)), speak=np.zeros((1, 3)),
        yaw=one, pitch=one, roll=one, centre=np.full((1, 2), 0.5), scale=np.full(1, 0.76),
        times_s=one, home=np.full(2, 0.5), home_scale=0.76,
    )  # fmt: skip


WHO = replace(write_script(0, "train", 0).actor.face, eye_tilt=0.0)


def units_of(motion: Motion) -> face.Units:
    return face.Units(motion.action_units, (1.0, 1.0))


def lips(**units: float) -> face.Mouth:
    motion = still(**units)
    return face.mouth(WHO, units_of(motion), motion)


def gap(mouth: face.Mouth) -> float:
    inside = next(s for s in mouth.shapes if s.paint == "mouth").points[0]
    return float(np.ptp(inside[:, 1]))


def brow(**units: float) -> np.ndarray:
    return face.brows(WHO, units_of(still(**units)))[1].points[0]  # viewer's right, inner end first


def opening(sclera: np.ndarray) -> float:
    """Greatest distance of the lids: the outline is the upper one, then the lower one back."""
    upper, lower = sclera[: len(sclera) // 2, 1], sclera[len(sclera) // 2 :, 1][::-1]
    return float((lower - upper).max())


def eye_height(**units: float) -> float:
    motion = still(**units)
    return opening(face.eyes(WHO, units_of(motion), motion)[0].points[0])


def test_mouth_follows_its_units():
    rest = lips()
    assert lips(AU12=1.0).corner_y.mean() < rest.corner_y.mean() - 0.1  # y grows downwards
    assert lips(AU15=1.0).corner_y.mean() > rest.corner_y.mean() + 0.08
    assert lips(AU20=1.0).half_width > 1.2 * rest.half_width
    assert gap(lips(AU25=1.0)) > gap(rest) + 0.05
    assert gap(lips(AU26=1.0)) > gap(lips(AU25=1.0))
    assert gap(lips(AU27=1.0)) > gap(lips(AU26=1.0))
    assert lips(AU27=1.0).jaw > 0.2

    def thickness(mouth: face.Mouth) -> float:
        return float(mouth.bottom[0] - mouth.top[0])

    assert thickness(lips(AU24=1.0)) < 0.6 * thickness(rest)
    assert lips(AU10=1.0).top < rest.top - 0.04


def test_brows_follow_their_units():
    rest = brow()
    inner, outer = slice(0, 3), slice(9, 12)
    assert brow(AU1=1.0)[inner, 1].mean() < rest[inner, 1].mean() - 0.1
    assert brow(AU2=1.0)[outer, 1].mean() < rest[outer, 1].mean() - 0.06
    assert brow(AU4=1.0)[inner, 1].mean() > rest[inner, 1].mean() + 0.05
    assert brow(AU4=1.0)[inner, 0].mean() < rest[inner, 0].mean() - 0.02  # drawn together

    def slope(points: np.ndarray) -> float:
        return float(points[6:9, 1].mean() - points[inner, 1].mean())

    assert slope(brow(AU1=0.8, AU4=0.6)) > slope(rest) + 0.05  # sadness: oblique, inner end up


def test_eyes_follow_their_units():
    rest = eye_height()
    assert eye_height(AU5=1.0) > 1.25 * rest
    assert eye_height(AU7=1.0) < 0.75 * rest
    assert eye_height(AU43=1.0) < 0.2 * rest
    motion = replace(still(), blink=np.ones(1))
    shut = face.eyes(WHO, units_of(motion), motion)[0].points[0]
    assert opening(shut) < 0.05 * rest


def test_pupils_and_teeth_stay_inside_their_openings():
    for script in (write_script(0, "train", i) for i in range(10)):
        motion = plan_motion(script, plan_speech(script), frame_times(script))
        au = face.Units(motion.action_units, script.actor.habits.side_gains)
        parts = face.eyes(script.actor.face, au, motion)
        for eye, pupil in ((0, 2), (len(parts) // 2, len(parts) // 2 + 2)):
            assert parts[eye].paint == "sclera"
            assert parts[pupil].paint == "pupil"
            lid, inner = parts[eye].points, parts[pupil].points
            assert (inner[..., 1].min(1) >= lid[..., 1].min(1) - 0.02).all()
            assert (inner[..., 1].max(1) <= lid[..., 1].max(1) + 0.02).all()


def test_an_expression_comes_and_goes():
    acting = write_script(0, "train", 1).acting.face
    acting = replace(
        acting, action_units={"AU12": 0.8}, onset_s=0.5, apex_s=1.0, offset_s=3.5, end_s=4.2
    )
    t = np.array([0.2, 2.0, 4.6])
    au12 = expression(acting, t, np.random.default_rng(0))[:, AU["AU12"]]
    assert au12[0] == 0.0
    assert au12[1] == pytest.approx(0.8, abs=0.15)
    assert 0.1 < au12[2] < 0.75 * au12[1]


def test_lips_move_with_the_voice():
    script = next(
        s
        for s in (write_script(0, "train", i) for i in range(200))
        if s.label == "neutral" and s.acting.voice.state == "expressive"
    )
    speech = plan_speech(script)
    times = frame_times(script)
    motion = plan_motion(script, speech, times)
    pcm = speak(script, speech)
    edges = (times * 16_000).astype(int)
    loud = np.array([np.sqrt(np.mean(pcm[max(0, e - 640) : e + 640] ** 2)) for e in edges])
    assert np.corrcoef(motion.speak[:, 0], loud)[0, 1] > 0.4


@pytest.mark.parametrize("split", ["train", "ood"])
def test_a_frame_is_the_same_whatever_else_is_rendered(split):
    script = write_script(2, split, 5)
    times = frame_times(script)
    every, _, row = render_clip(2, split, 5, audio=False)
    some, nothing, _ = render_clip(2, split, 5, times_s=times[[2, 30]], audio=False)
    np.testing.assert_array_equal(every[[2, 30]], some)
    assert every.shape == (len(times), 128, 128, 3)
    assert every.dtype == np.uint8
    assert nothing.size == 0
    assert row.end_s == script.duration_s
    assert row.actor == script.actor.id


def in_style(style: str) -> Script:
    return next(
        s
        for s in (write_script(0, "train", i) for i in range(400))
        if s.acting.style == style
        and s.acting.face.state == "expressive"
        and not s.acting.face.covered
    )


@pytest.mark.parametrize("style", [*STYLE_NAMES, "clay"])
def test_expressions_can_be_seen_in_every_style(style):
    """The same frame, sensor noise and all, with and without an expression."""
    script = in_style("shaded" if style == "clay" else style)
    draw = clay.render if style == "clay" else render
    rest, smile, frown = (
        draw(script, still(**units), 96)[0].astype(float)
        for units in ({}, {"AU12": 0.8, "AU25": 0.5}, {"AU4": 0.9, "AU15": 0.8})
    )
    mouth = (slice(56, 78), slice(32, 64))
    brows = (slice(30, 46), slice(28, 68))
    assert np.abs(smile - rest)[mouth].mean() > 5
    assert np.abs(frown - rest)[brows].mean() > 5
    assert np.abs(smile - frown)[mouth].mean() > 5


def test_hidden_faces_show_no_expression():
    for state in ("occluded", "turned"):
        script = next(
            s
            for s in (write_script(0, "train", i) for i in range(800))
            if s.acting.face.state == state
        )
        calm, wild = (
            render(script, still(**units), 96)[0].astype(int)
            for units in ({}, {"AU4": 1.0, "AU12": 1.0, "AU1": 1.0})
        )
        middle = (slice(34, 66), slice(32, 64))
        assert np.abs(calm - wild)[middle].mean() < 1.5, state


def test_an_absent_actor_is_not_in_the_picture():
    script = next(
        s
        for s in (write_script(0, "train", i) for i in range(2000))
        if s.acting.face.state == "absent"
    )
    motion = plan_motion(script, plan_speech(script), np.array([1.0, 3.0]))
    shapes = build_shapes(script, motion, STYLES[script.acting.style], 0.0)
    mouth = next(
        points
        for shape, points in zip(shapes, project(shapes, motion, 96), strict=True)
        if shape.paint == "mouth"
    )
    x = mouth[..., 0] / 16
    assert (x < 0).all() or (x > 96).all()


def test_frame_targets_are_the_acting():
    script = in_style("shaded")
    units = action_units_at(script, np.array([script.acting.face.apex_s + 0.4]))
    for name, value in script.acting.face.action_units.items():
        assert units[0, AU[name]] == pytest.approx(value, abs=0.25)
    assert FRAMES_HZ > 10
