from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from emostream.inference.recognizer import Recognizer
from emostream.media import iter_frames, read_audio
from emostream.model.presets import from_preset
from emostream.people.presence import Absent, Attendance, VisibleFace
from emostream.sampling import grid_time
from stream.pubsub.messages import Dropped, Modalities, Presence
from stream.serve.loop import media_window
from stream.windows.attendance import Attendant
from stream.windows.presence_fields import why_no_label
from stream.windows.window import GridFrame, Window
from tests.crowd import ACTORS, HEIGHT, WIDTH, crossing, owner
from tests.crowd import actors as rendered_actors

DEMO = Path(str(files("stream") / "assets" / "demo.mp4"))
STEP_S, COUNT = 0.5, 8
SPEECH = "speech"
FACE = VisibleFace(box=(0.1, 0.1, 0.1, 0.1), confidence=0.9, track=1)
Picture = str | None


@pytest.fixture(scope="module")
def crowd() -> list[list[np.ndarray]]:
    """Pictures of each of four rendered actors."""
    return rendered_actors(ACTORS[:4])


@pytest.fixture(scope="module")
def actors() -> dict[str, np.ndarray]:
    """(120, 160, 3) frames of two actors in a grey room, and of the room."""
    frames = {round(frame.time_s, 2): frame.rgb for frame in iter_frames(DEMO)}
    out = {"nobody": np.full((120, 160, 3), 90, np.uint8)}
    for name, time_s, x in (("she", 1.04, 0), ("he", 8.0, 60)):
        out[name] = out["nobody"].copy()
        out[name][20:, x : x + 100] = cv2.resize(frames[time_s], (100, 100))
    out["he"] = (out["he"] * (0.5, 0.7, 1.0)).astype(np.uint8)  # nobody takes him for her
    return out


@pytest.fixture(scope="module")
def config():
    return from_preset("tiny")[0].config


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    return read_audio(DEMO, 0, 12).pcm


def windows(actors, pictures: list[str], pcm: np.ndarray | None = None) -> list[Window]:
    """All windows over grid points that show what `pictures` name; `gap` has no frame of its own."""
    out = []
    for k in range(COUNT, len(pictures) + 1):
        frames = []
        for j in range(k - COUNT + 1, k + 1):
            key = max(i for i in range(1, j + 1) if pictures[i - 1] != "gap")
            rgb = actors[pictures[key - 1]]
            frames.append(
                GridFrame(key=key, time_s=grid_time(key, STEP_S), rgb=rgb, repeated=key != j)
            )
        end = round(grid_time(k, STEP_S) * 16_000)
        out.append(
            Window(
                source="cam0",
                id=k,
                start_s=grid_time(k - COUNT, STEP_S),
                end_s=grid_time(k, STEP_S),
                frames=tuple(frames),
                pcm=None if pcm is None else pcm[end - 64_000 : end],
                modalities=Modalities(video="ok", audio="missing" if pcm is None else "ok"),
                frames_used=len({frame.key for frame in frames}),
                audio_gap_ms=4000.0 if pcm is None else 0.0,
                av_skew_ms=None if pcm is None else 10.0,
                newest_capture_s=grid_time(k, STEP_S),
                dropped=Dropped(frames=0, audio_ms=0.0, windows=0),
            )
        )
    return out


def states(attended: list[tuple]) -> list[tuple[Presence, Presence]]:
    return [(window.modalities.video, window.modalities.audio) for window, _ in attended]


def test_who_is_there_all_the_time_changes_nothing(actors, config, spoken):
    attendant = Attendant(config)
    for window in windows(actors, ["she"] * 11, spoken):
        [(attended, found)] = attendant.attend(window)
        assert attended == window
        assert (found.people, found.face.track) == (1, 1)
        assert found.speech_ratio > 0.3
        assert (found.absent.video, found.absent.audio) == (None, None)


def test_the_model_is_not_shown_an_empty_room(actors, config):
    attendant = Attendant(config)
    shown = ["nobody"] * 8 + ["she"] * 3 + ["nobody"] * 4
    attended = [attendant.attend(window)[0] for window in windows(actors, shown)]
    room = actors["nobody"]
    videos = [video for video, _ in states(attended)]
    # She comes, is bridged for one frame, and is gone.
    assert videos == ["missing"] + ["degraded"] * 4 + ["missing"] * 3
    for window, found in attended:
        assert not any(np.array_equal(frame.rgb, room) for frame in window.frames)
        assert window.lost == (found.people == 0)
        assert len(window.frames) in (0, COUNT)
    first = attended[1][0]
    assert [frame.key for frame in first.frames] == [9] * COUNT
    assert [frame.repeated for frame in first.frames] == [True] * 7 + [False]
    assert first.frames_used == 1


def test_silence_and_noise_are_left_out(actors, config, spoken):
    hiss = np.random.default_rng(0).normal(0, 0.05, 64_000).astype(np.float32)
    pcm = np.concatenate((hiss, spoken[:64_000], np.zeros(80_000, np.float32)))
    attendant = Attendant(config)
    attended = [attendant.attend(window)[0] for window in windows(actors, ["she"] * 26, pcm)]
    ratios = [found.speech_ratio for _, found in attended]
    heard = [window.pcm is not None for window, _ in attended]
    assert heard == [ratio >= 0.1 for ratio in ratios]
    assert not heard[0]
    assert heard[8]
    assert not heard[-1]
    assert [found.absent.audio for _, found in attended] == [
        None if there else "nobody speaking" for there in heard
    ]
    assert [window.av_skew_ms is not None for window, _ in attended] == heard


def test_a_face_is_cut_out_of_each_frame_once_whatever_the_window(actors, config):
    face = replace_crop(config, "face")
    attendant, seen = Attendant(face), {}
    for window in windows(actors, ["she"] * 14):
        [(attended, _)] = attendant.attend(window)
        for frame in attended.frames:
            assert frame.rgb.shape == (face.vision_config.image_size,) * 2 + (3,)
            assert np.array_equal(seen.setdefault((frame.key, frame.whose), frame.rgb), frame.rgb)


def test_of_two_who_follow_each_other_the_model_sees_the_second_alone(actors, config):
    attendant = Attendant(replace_crop(config, "face"))
    shown = ["she"] * 5 + ["nobody"] * 2 + ["he"] * 5
    attended = [attendant.attend(window)[0] for window in windows(actors, shown)]
    last, found = attended[-1]
    assert found.people == 1
    assert {frame.whose for frame in last.frames} == {found.face.track}
    assert min(frame.key for frame in last.frames) == 8


@pytest.fixture(scope="module")
def both(actors) -> dict[str, np.ndarray]:
    """(120, 320, 3) frames of the room with her on the left, him on the right, both or nobody."""
    she, he, room = actors["she"], actors["he"], actors["nobody"]
    sides = {"nobody": (room, room), "she": (she, room), "he": (room, he), "both": (she, he)}
    return {name: np.concatenate(parts, axis=1) for name, parts in sides.items()}


@pytest.mark.parametrize("frame_crop", ["whole", "face"])
def test_each_of_two_has_a_name_and_pictures_of_their_own(both, config, frame_crop):
    attendant = Attendant(replace_crop(config, frame_crop), 2)
    shown = ["she"] * 8 + ["both"] * 3 + ["he"] * 8 + ["nobody"] * 7
    attended = [attendant.attend(window) for window in windows(both, shown)]
    names = [[window.source for window, _ in people] for people in attended]
    # He is waited for, for three seconds.
    assert names == [["cam0"]] + [["cam0", "cam0-p2"]] * 17 + [["cam0"]]
    tracks = [[found.face and found.face.track for _, found in people] for people in attended]
    assert tracks[:4] == [[1], [1, 2], [1, 2], [1, 2]]
    assert tracks[11:15] == [[None, 2], [None, 2], [None, None], [None, None]]
    (hers, _), (his, found) = attended[3]
    assert (found.people, found.left_out) == (2, 0)
    assert (hers.modalities.video, his.modalities.video) == ("ok", "degraded")
    for window, track in ((hers, 1), (his, 2)):
        assert {frame.whose for frame in window.frames} == {track}
        for frame in window.frames:
            assert frame.rgb.shape == (config.vision_config.image_size,) * 2 + (3,)
    assert not np.array_equal(hers.frames[-1].rgb, his.frames[-1].rgb)
    assert attended[11][0][0].lost
    assert not attended[11][1][0].lost


def test_who_of_two_speaks_is_left_open(both, config, spoken):
    attendant = Attendant(replace_crop(config, "face"), 2)
    shown = ["she"] * 8 + ["both"] + ["he"] * 11
    attended = [attendant.attend(window) for window in windows(both, shown, spoken)]
    voices = [[found.voice for _, found in people] for people in attended]
    assert voices[0] == ["attributed"]
    assert voices[1:8] == [["unattributed"] * 2] * 7
    for people in attended[1:8]:
        for window, found in people:
            assert (window.pcm, window.modalities.audio) == (None, "missing")
            assert found.absent.audio == "voice unattributed"
    # She was out of sight in all of his last window.
    assert voices[-1] == ["unattributed", "attributed"]
    assert attended[-1][1][0].pcm is not None


@pytest.mark.parametrize(
    ("people", "face", "absent", "why"),
    [
        (0, None, ("nobody visible", "nobody speaking"), "nobody in the picture"),
        (None, None, (None, "nobody speaking"), "nobody in the picture"),
        (2, None, ("nobody visible", "voice unattributed"), "not in the picture"),
        (1, FACE, ("face too small", "nobody speaking"), "face too small, nobody speaking"),
    ],
)
def test_why_there_is_no_label_is_said(people, face, absent, why):
    absent = Absent(video=absent[0], audio=absent[1])
    found = Attendance(people=people, face=face, speech_ratio=0.0, absent=absent)
    assert why_no_label(found) == why


def test_who_is_not_shown_is_counted(both, config, spoken):
    attendant = Attendant(replace_crop(config, "face"))
    *_, window = windows(both, ["both"] * 8, spoken)
    [(attended, found)] = attendant.attend(window)
    assert (found.people, found.left_out, found.voice) == (2, 1, "unattributed")
    assert attended.pcm is None


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (4, 1)])
def test_nobody_s_name_changes_hands_while_people_cross(crowd, config, count, seed):
    pictures, owners = {}, {}
    for time_s, frame, whose in crossing(crowd[:count], seconds=30, step_s=STEP_S, seed=seed):
        pictures[f"{time_s}"], owners[len(pictures)] = frame[::2, ::2], whose
    recognizer = Recognizer(*from_preset("tiny", seed=1))
    attendant = Attendant(replace_crop(config, "face"), 8)
    hands, told, pairs = {}, Counter(), set()
    for window in windows(pictures, list(pictures)):
        found = attendant.attend(window)
        people = [seen for seen, _ in found if seen.frames]
        for said in recognizer.recognize([media_window(seen) for seen in people]):
            told[said.source] += 1
        pairs |= {(w.source, frame.key, frame.whose) for w in people for frame in w.frames}
        for seen, who in found:
            if seen.frames and not seen.frames[-1].repeated:
                x, y, width, height = who.face.box
                box = (x * WIDTH, y * HEIGHT, width * WIDTH, height * HEIGHT)
                hands.setdefault(seen.source, set()).add(owner(owners[window.id], *box))
    hands = {source: whose - {None} for source, whose in hands.items()}
    assert {len(whose) for whose in hands.values()} == {1}
    assert set.union(*hands.values()) == set(range(count))
    assert len(hands) == count
    hops = len(pictures) - COUNT + 1
    assert min(told.values()) >= 0.9 * hops
    # All that each has been shown was encoded once.
    assert recognizer.encoder.frames_encoded == len(pairs)


def replace_crop(config, frame_crop):
    changed = type(config).from_dict(config.to_dict())
    changed.frame_crop = frame_crop
    return changed


def test_a_frame_that_came_late_into_a_gap_is_not_looked_at(actors, config):
    attendant = Attendant(config)
    shown = ["she"] * 7 + ["gap"] + ["she"] * 2
    first, second, _ = windows(actors, shown)
    attendant.attend(first)
    attendant.attend(second)
    late = [*second.frames]
    late[-2] = replace(late[-2], key=8, rgb=actors["nobody"], repeated=False)
    [(attended, found)] = attendant.attend(replace(second, id=10, frames=tuple(late)))
    assert found.people == 1
    assert [frame.key for frame in attended.frames][-2:] == [7, 9]


def test_sound_too_short_to_be_heard_is_let_through(actors, config):
    [window] = windows(actors, ["she"] * 8)
    pcm = np.zeros(300, np.float32)
    [(attended, found)] = Attendant(config).attend(replace(window, pcm=pcm))
    assert attended.pcm is pcm
    assert found.speech_ratio is None
