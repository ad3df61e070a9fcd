"""The windower against an independent brute-force reference, and the rules of lateness, loss and memory."""

import math
import random
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emostream.errors import ConfigError
from stream.windows.window import Window
from stream.windows.windower import Windower

RATE_HZ = 16_000
WINDOW_S, NUM_FRAMES = 2.0, 4  # a step of 0.5 s, small enough for many examples
STEP = Fraction(1, 2)


def picture(time_ms: int) -> np.ndarray:
    """A frame that carries its own capture time."""
    return np.full((1, 1, 3), (time_ms % 256, time_ms // 256 % 256, time_ms // 65536), np.uint8)


def time_of(rgb: np.ndarray) -> int:
    red, green, blue = (int(value) for value in rgb[0, 0])
    return red + 256 * green + 65536 * blue


def tone(start: int, stop: int) -> np.ndarray:
    """Samples that carry their own index, never zero, so that a gap can be told from sound."""
    return (((np.arange(start, stop) * 7919) % 1000 + 1) / 1001).astype(np.float32)


@dataclass(frozen=True)
class Recording:
    """Frame times in milliseconds; stretches of sound as (start, stop) sample indices, ascending and disjoint."""

    frames_ms: tuple[int, ...]
    sound: tuple[tuple[int, int], ...]

    @property
    def end(self) -> Fraction:
        ends = [Fraction(ms, 1000) for ms in self.frames_ms]
        ends += [Fraction(stop, RATE_HZ) for _, stop in self.sound]
        return max(ends, default=Fraction(0))


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    frames = draw(st.lists(st.integers(0, 6000), max_size=40, unique=True))
    edges = sorted(draw(st.lists(st.integers(0, 60), max_size=6, unique=True)))
    jitter = draw(st.lists(st.integers(0, 1500), min_size=6, max_size=6))
    points = [edge * 1600 + jitter[i] for i, edge in enumerate(edges)]
    return Recording(tuple(sorted(frames)), tuple(zip(points[::2], points[1::2], strict=False)))


def newest_between(recording: Recording, after: int, until: int) -> int | None:
    """Newest frame after grid point `after`, up to and with grid point `until`."""
    times = (ms for ms in recording.frames_ms if after * STEP < Fraction(ms, 1000) <= until * STEP)
    return max(times, default=None)


def reference(recording: Recording, k: int) -> dict:
    """Window k by definition, one grid point and one sample at a time, in exact arithmetic."""
    grid_ms: list[int | None] = []
    repeated = 0
    for j in range(k - NUM_FRAMES + 1, k + 1):
        own = newest_between(recording, j - 1, j)
        repeated += own is None
        # Before the first frame of all stands the newest of the first grid point that has any.
        later = (newest_between(recording, i - 1, i) for i in range(j + 1, k + 1))
        before = newest_between(recording, -1, j)
        first = next((ms for ms in later if ms is not None), None)
        grid_ms.append(own if own is not None else before if before is not None else first)
    start = int((k - NUM_FRAMES) * STEP * RATE_HZ)
    pcm = np.zeros(int(WINDOW_S * RATE_HZ), np.float32)
    known = np.zeros(pcm.size, bool)
    for first, stop in recording.sound:
        low, high = max(first, start), min(stop, start + pcm.size)
        if low < high:
            pcm[low - start : high - start] = tone(low, high)
            known[low - start : high - start] = True
    gap = int((~known).sum())
    video = "missing" if repeated > NUM_FRAMES / 2 else "degraded" if repeated else "ok"
    audio = "missing" if gap > pcm.size / 2 else "degraded" if gap > 16 else "ok"
    newest_frame = None if video == "missing" else max(grid_ms) / 1000
    newest_sample = (
        None if audio == "missing" else (start + int(np.flatnonzero(known)[-1]) + 1) / RATE_HZ
    )
    return {
        "id": k,
        "start_s": float((k - NUM_FRAMES) * STEP),
        "end_s": float(k * STEP),
        "frames_ms": () if video == "missing" else tuple(grid_ms),
        "frames_used": 0 if video == "missing" else len(set(grid_ms)),
        "pcm": None if audio == "missing" else pcm.tobytes(),
        "modalities": (video, audio),
        "audio_gap_ms": gap / 16,
        "newest_capture_s": max(
            (t for t in (newest_frame, newest_sample) if t is not None), default=None
        ),
        "av_skew_ms": None
        if newest_frame is None or newest_sample is None
        else pytest.approx(1000 * (newest_sample - newest_frame), abs=1e-6),
    }


def described(window: Window) -> dict:
    for frame in window.frames:
        assert frame.time_s == time_of(frame.rgb) / 1000
        assert window.end_s - window.start_s < WINDOW_S or (
            Fraction(frame.key - 1) * STEP < Fraction(time_of(frame.rgb), 1000) <= frame.key * STEP
        )
    return {
        "id": window.id,
        "start_s": window.start_s,
        "end_s": window.end_s,
        "frames_ms": tuple(time_of(frame.rgb) for frame in window.frames),
        "frames_used": window.frames_used,
        "pcm": None if window.pcm is None else window.pcm.tobytes(),
        "modalities": (window.modalities.video, window.modalities.audio),
        "audio_gap_ms": window.audio_gap_ms,
        "newest_capture_s": window.newest_capture_s,
        "av_skew_ms": window.av_skew_ms,
    }


def short_reference(recording: Recording) -> dict:
    """The one window of a file that ends before the first is over: all of it, frames at segment midpoints."""
    end = recording.end or STEP
    taken: list[int] = []
    if frames := recording.frames_ms:
        gap = Fraction(len(frames) - 1, NUM_FRAMES)
        # Ties do not occur in the published formula, which adds a millionth.
        taken = [
            frames[int(gap * (2 * i + 1) / 2 + Fraction(500001, 10**6))] for i in range(NUM_FRAMES)
        ]
    size = round(end * RATE_HZ)
    pcm, known = np.zeros(size, np.float32), np.zeros(size, bool)
    for first, stop in recording.sound:
        pcm[first:stop], known[first:stop] = tone(first, stop), True
    gap_samples = int((~known).sum())
    video = "missing"
    if taken:
        ends = max(taken[0], end * 1000 - taken[-1]) >= STEP * 1000
        video = "degraded" if ends or len(set(taken)) < NUM_FRAMES else "ok"
    audio = "missing" if gap_samples == size else "degraded" if gap_samples > 16 else "ok"
    newest_frame = max(taken) / 1000 if taken else None
    newest_sample = None if audio == "missing" else (np.flatnonzero(known)[-1] + 1) / RATE_HZ
    return {
        "id": math.ceil(end / STEP),
        "start_s": 0.0,
        "end_s": float(end),
        "frames_ms": tuple(taken),
        "frames_used": len(set(taken)),
        "pcm": None if audio == "missing" else pcm.tobytes(),
        "modalities": (video, audio),
        "audio_gap_ms": gap_samples / 16,
        "newest_capture_s": max(t for t in (newest_frame, newest_sample) if t is not None),
        "av_skew_ms": None
        if newest_frame is None or newest_sample is None
        else pytest.approx(1000 * (newest_sample - newest_frame), abs=1e-6),
    }


def reference_windows(recording: Recording, hop: int) -> list[dict]:
    """Every window of a file, up to the one whose end is nearest to the end of its data."""
    if not recording.frames_ms and not recording.sound:
        return []
    last = int(recording.end / STEP + Fraction(1, 2))
    if last < NUM_FRAMES:
        return [short_reference(recording)]
    return [reference(recording, k) for k in range(NUM_FRAMES, last + 1, hop)]


def new_windower(**options) -> Windower:
    return Windower("clip", window_s=WINDOW_S, num_frames=NUM_FRAMES, **options)


def chunks(
    recording: Recording, rng: random.Random, sizes: tuple[int, ...] = (1, 77, 1600, 1601, 40_000)
) -> list[tuple[int, int]]:
    """The sound cut at random places, in order."""
    pieces = []
    for start, stop in recording.sound:
        while start < stop:
            size = min(stop - start, rng.choice(sizes))
            pieces.append((start, start + size))
            start += size
    return pieces


def feed(windower: Windower, item: int | tuple[int, int]) -> None:
    if isinstance(item, int):
        windower.add_frame(item / 1000, picture(item))
    else:
        windower.add_pcm(item[0] / RATE_HZ, tone(*item))


@settings(max_examples=150)
@given(recordings(), st.integers(1, 3), st.integers(0, 2**32))
def test_any_order_and_chunking_gives_the_reference_windows(
    recording: Recording, hop: int, seed: int
) -> None:
    rng = random.Random(seed)
    items: list = [*recording.frames_ms, *chunks(recording, rng)]
    rng.shuffle(items)
    windower = new_windower(hop_steps=hop, lossless=True)
    for item in items:
        feed(windower, item)
    windower.mark_end()
    windows = list(iter(windower.advance, None))
    assert [described(window) for window in windows] == reference_windows(recording, hop)
    assert windower.finished
    assert all(window.dropped.windows == window.dropped.frames == 0 for window in windows)


@settings(max_examples=150)
@given(recordings(), st.integers(1, 3), st.integers(0, 2**32))
def test_any_interleaving_gives_the_reference_windows_while_it_arrives(
    recording: Recording, hop: int, seed: int
) -> None:
    rng = random.Random(seed)
    frames, sound = list(recording.frames_ms), chunks(recording, rng)
    windower = new_windower(hop_steps=hop, lossless=True)
    windows = []
    while frames or sound:
        lane = frames if frames and (not sound or rng.random() < 0.5) else sound
        feed(windower, lane.pop(0))
        windows += iter(windower.advance, None)
    windower.mark_end()
    windows += iter(windower.advance, None)
    assert [described(window) for window in windows] == reference_windows(recording, hop)
    assert windows[-1].dropped.audio_ms == 0 if windows else True


@settings(max_examples=100)
@given(recordings(), st.integers(0, 2**32))
def test_delays_within_the_lateness_change_nothing_live(recording: Recording, seed: int) -> None:
    rng = random.Random(seed)
    arrivals: list[tuple[float, int, int | tuple[int, int]]] = []
    for lane in (list(recording.frames_ms), chunks(recording, rng, (320, 800, 1600))):
        arrival_s = 0.0
        for item in lane:
            captured_s = item / 1000 if isinstance(item, int) else item[1] / RATE_HZ
            # Each stream keeps its order, as a connection does; a chunk is as old as its first sample.
            arrival_s = max(arrival_s, captured_s + rng.uniform(0, 0.19))
            arrivals.append((arrival_s, len(arrivals), item))
    arrivals.sort()
    windower = new_windower(video_lateness_s=0.3, audio_lateness_s=0.3)
    windows, now_s = [], 0.0
    for k in range(NUM_FRAMES, NUM_FRAMES + 12):
        due_s = float(k * STEP) + 0.3
        while now_s < due_s:
            now_s = min(now_s + 0.05, due_s)
            while arrivals and arrivals[0][0] <= now_s:
                feed(windower, arrivals.pop(0)[2])
            while (window := windower.advance(now_s)) is not None:
                windows.append(window)
    expected = [reference(recording, k) for k in range(NUM_FRAMES, NUM_FRAMES + 12)]
    assert [described(window) for window in windows[:12]] == expected


def fill(
    windower: Windower, from_s: float, to_s: float, *, video: bool = True, audio: bool = True
) -> None:
    """Frames at 10 fps and sound in chunks of 100 ms, in step."""
    for tick in range(round(from_s * 10), round(to_s * 10)):
        if audio:
            windower.add_pcm(tick / 10, tone(tick * 1600, (tick + 1) * 1600))
        if video:
            windower.add_frame((tick + 1) / 10, picture((tick + 1) * 100))


def test_a_window_is_ready_once_both_streams_have_passed_its_end() -> None:
    windower = new_windower()
    fill(windower, 0, 2, audio=False)
    fill(windower, 0, 1.9, video=False)
    assert windower.advance(2.0) is None
    fill(windower, 1.9, 2, video=False)
    window = windower.advance(2.0)
    assert window is not None
    assert (window.id, window.modalities.video, window.modalities.audio) == (4, "ok", "ok")
    assert window.newest_capture_s == 2.0
    assert window.av_skew_ms == 0.0


def test_a_watermark_completes_a_grid_cell_before_the_next_frame() -> None:
    windower = new_windower()
    fill(windower, 0, 2, video=False)
    for time_ms in (400, 900, 1400, 1900):
        windower.add_frame(time_ms / 1000, picture(time_ms), watermark_s=None)
    assert windower.advance(2.0) is None
    windower.watermark("video", 2.0)
    window = windower.advance(2.0)
    assert window is not None
    assert window.av_skew_ms == pytest.approx(100.0)  # sound up to 2.0, the newest frame at 1.9


def test_the_deadline_ends_the_wait_for_each_stream_by_its_own_lateness() -> None:
    windower = new_windower(video_lateness_s=0.1, audio_lateness_s=0.4)
    fill(windower, 0, 2, audio=False)
    fill(windower, 0, 1.9, video=False)
    assert windower.deadline_s == 2.4
    assert windower.advance(2.39) is None
    window = windower.advance(2.4)
    assert window is not None
    assert window.modalities.audio == "degraded"
    assert window.audio_gap_ms == pytest.approx(100.0)


def test_a_lost_stream_is_not_waited_for_until_it_is_back() -> None:
    windower = new_windower()
    fill(windower, 0, 2)
    assert windower.advance(2.0) is not None
    windower.mark_lost("video")
    fill(windower, 2, 2.5, video=False)
    window = windower.advance(2.5)
    assert window is not None
    assert window.modalities.video == "degraded"
    assert [frame.repeated for frame in window.frames] == [False, False, False, True]
    assert window.frames[3].key == window.frames[2].key
    assert window.frames_used == 3
    fill(windower, 2.5, 3.0, video=False)
    windower.add_frame(2.9, picture(2900))  # it is back, so it is waited for again
    assert windower.advance(3.0) is None
    windower.add_frame(3.05, picture(3050))
    window = windower.advance(3.0)
    assert window is not None
    assert [frame.repeated for frame in window.frames] == [False, False, True, False]


def test_a_stream_may_start_late_and_stop_for_good() -> None:
    windower = new_windower()
    windower.mark_lost("audio")
    fill(windower, 0, 2, audio=False)
    window = windower.advance(2.0)
    assert window is not None
    assert (window.pcm, window.modalities.audio, window.audio_gap_ms) == (None, "missing", 2000.0)
    assert not window.lost
    fill(windower, 2, 3.0)
    window = windower.advance(3.0)
    assert window is not None
    assert window.pcm is not None  # half of it is there: not over half is missing
    assert not window.pcm[:RATE_HZ].any()
    assert window.audio_gap_ms == 1000.0
    windower.mark_lost("video")
    for end in range(7, 12):
        fill(windower, (end - 1) / 2, end / 2, video=False)
        window = windower.advance(end / 2)
        assert window is not None
    assert window.frames == ()
    assert window.frames_used == 0
    assert window.modalities.video == "missing"
    assert window.av_skew_ms is None


def test_both_missing_is_lost_and_the_clock_goes_on() -> None:
    windower = new_windower(video_lateness_s=0.1, audio_lateness_s=0.2)
    windower.mark_lost("video")
    windower.mark_lost("audio")
    assert windower.advance(2.1) is None
    for k in (4, 5, 6):
        window = windower.advance(k / 2 + 0.2)
        assert window is not None
        assert window.id == k
        assert window.lost
        assert window.newest_capture_s is None


def test_what_never_came_is_not_waited_for_live_and_is_without_loss() -> None:
    live, lossless = new_windower(), new_windower(lossless=True)
    for windower in (live, lossless):
        fill(windower, 0, 2, video=False)
    window = live.advance(2.0)
    assert window is not None
    assert window.modalities.video == "missing"
    assert lossless.advance() is None


def test_a_source_without_video_is_served_by_its_sound() -> None:
    windower = new_windower(modalities=("audio",))
    fill(windower, 0, 2, video=False)
    window = windower.advance(2.0)
    assert window is not None
    assert (window.modalities.video, window.modalities.audio) == ("missing", "ok")


def test_stale_windows_are_skipped_and_counted_never_queued() -> None:
    windower = new_windower()
    fill(windower, 0, 4.5)
    window = windower.advance(4.5)
    assert window is not None
    assert window.id == 9
    assert window.dropped.windows == windower.skipped == 5
    assert described(window) == reference(
        Recording(tuple(range(100, 4600, 100)), ((0, 72_000),)), 9
    )
    assert windower.advance(4.5) is None


def test_lossless_skips_nothing() -> None:
    windower = new_windower(lossless=True)
    fill(windower, 0, 4.5)
    ids = [window.id for window in iter(windower.advance, None)]
    assert ids == [4, 5, 6, 7, 8, 9]


def test_a_late_frame_does_not_change_a_grid_point_that_was_used() -> None:
    windower = new_windower(video_lateness_s=0.0)
    fill(windower, 0, 2, video=False)
    for time_ms in (400, 900, 1900):
        windower.add_frame(time_ms / 1000, picture(time_ms))
    first = windower.advance(2.0)
    assert first is not None
    assert [time_of(frame.rgb) for frame in first.frames] == [400, 900, 900, 1900]
    windower.add_frame(1.95, picture(1950))  # its grid point has shown 1.9 already
    windower.add_frame(1.4, picture(1400))  # its grid point had nothing to show
    fill(windower, 2, 2.5)
    second = windower.advance(2.5)
    assert second is not None
    assert [time_of(frame.rgb) for frame in second.frames] == [900, 1400, 1900, 2500]
    assert second.dropped.frames == 1
    windower.add_frame(0.2, picture(200))  # no window to come can use it
    windower.add_pcm(0.2, tone(3200, 4800))
    fill(windower, 2.5, 3.0)
    third = windower.advance(3.0)
    assert third is not None
    assert third.dropped.frames == 2
    assert third.dropped.audio_ms == pytest.approx(100.0)


def test_late_sound_serves_the_windows_to_come() -> None:
    windower = new_windower(audio_lateness_s=0.0)
    fill(windower, 0, 2.5, audio=False)
    fill(windower, 0, 1.5, video=False)
    first = windower.advance(2.0)
    assert first is not None
    assert first.audio_gap_ms == 500.0
    fill(windower, 1.5, 2.5, video=False)
    second = windower.advance(2.5)
    assert second is not None
    assert second.audio_gap_ms == 0.0


def test_sound_that_the_medium_lacks_counts_as_a_gap() -> None:
    windower = new_windower()
    fill(windower, 0, 2, audio=False)
    windower.add_pcm(0.0, tone(0, 16_000))
    silence = np.zeros(16_000, np.float32)
    windower.add_pcm(1.0, silence[:4000], gap_samples=4000)
    half = np.concatenate([silence[:1000], tone(21_000, 32_000)])
    windower.add_pcm(1.25, half, gap_samples=1000)
    window = windower.advance(2.0)
    assert window is not None
    assert window.audio_gap_ms == pytest.approx(5000 / 16)
    assert window.modalities.audio == "degraded"


def test_capture_drops_are_passed_on() -> None:
    windower = new_windower()
    windower.note_dropped(frames=3)
    windower.note_dropped(audio_ms=40.0)
    fill(windower, 0, 2)
    window = windower.advance(2.0)
    assert window is not None
    assert (window.dropped.frames, window.dropped.audio_ms) == (3, 40.0)


def test_the_first_window_begins_at_or_after_the_origin_on_the_grid() -> None:
    windower = new_windower(origin_s=1234.2)
    assert windower.deadline_s == pytest.approx(1236.5 + 0.15)
    fill(windower, 1234.2, 1236.5)
    window = windower.advance(1236.5)
    assert window is not None
    assert (window.id, window.start_s) == (2473, 1234.5)
    assert window.modalities.video == window.modalities.audio == "ok"


def test_a_clip_shorter_than_a_window_gives_one() -> None:
    windower = new_windower(lossless=True)
    fill(windower, 0, 1.3)
    windower.mark_end()
    [window] = iter(windower.advance, None)
    assert (window.id, window.start_s, window.end_s) == (3, 0.0, 1.3)
    # Of frames at 0.1, 0.2 … 1.3 s, those in the middle of four equal parts; all of the sound, and no zeros behind it.
    assert [frame.time_s for frame in window.frames] == [0.3, 0.6, 0.9, 1.2]
    assert window.pcm is not None
    assert window.pcm.size == 1.3 * RATE_HZ
    assert window.modalities.video == window.modalities.audio == "ok"
    assert windower.finished


@pytest.mark.parametrize("lossless", [True, False])
def test_what_is_too_short_for_half_a_window_has_a_label_all_the_same(lossless: bool) -> None:
    windower = new_windower(lossless=lossless)
    windower.add_frame(0.0, picture(0))
    windower.add_pcm(0.3, tone(4800, 6400))
    windower.mark_end()
    [window] = iter(windower.advance, None)
    assert (window.start_s, window.end_s) == (0.0, 0.4)
    assert window.frames_used == 1
    assert window.audio_gap_ms == 300
    assert window.modalities.video == window.modalities.audio == "degraded"


def test_a_mark_beyond_the_end_of_a_file_makes_no_window_of_its_own() -> None:
    """Whether the last frame of a file or its end is looked at first must not matter."""
    windower = new_windower(lossless=True, modalities=("video",))
    for time_ms, watermark_s in ((500, 0.5), (1000, 1.0), (1500, 1.5), (1700, 2.0)):
        windower.add_frame(time_ms / 1000, picture(time_ms), watermark_s)
    assert windower.advance() is None
    windower.mark_end()
    [window] = iter(windower.advance, None)
    assert (window.start_s, window.end_s) == (0.0, 1.7)


def test_sound_that_the_model_cannot_hear_is_said() -> None:
    windower = new_windower(lossless=True)
    windower.limit_sound(RATE_HZ)
    fill(windower, 0, 2)
    windower.mark_end()
    [window] = iter(windower.advance, None)
    assert window.pcm is not None
    np.testing.assert_array_equal(window.pcm, tone(RATE_HZ, 2 * RATE_HZ))  # the newest
    assert (window.audio_gap_ms, window.modalities.audio) == (1000, "degraded")


def test_memory_is_bounded_when_nobody_takes_windows() -> None:
    windower = new_windower()
    fill(windower, 0, 60)
    held = len(windower._cells), len(windower._audio._blocks)
    fill(windower, 60, 600)
    assert (len(windower._cells), len(windower._audio._blocks)) == held
    assert held[0] < 2 * NUM_FRAMES + 4
    window = windower.advance(600.0)
    assert window is not None
    assert window.id == 1200
    assert window.dropped.windows == 1200 - NUM_FRAMES
    assert window.modalities.video == window.modalities.audio == "ok"


def test_memory_is_bounded_when_one_stream_never_comes() -> None:
    windower = new_windower()
    fill(windower, 0, 600, video=False)
    assert len(windower._audio._blocks) < 10 * (2 * WINDOW_S + 2)
    assert windower.advance(600.2) is not None


@pytest.mark.parametrize(
    "options", [{"window_s": 0.0}, {"num_frames": 0}, {"hop_steps": 0}, {"window_s": float("nan")}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="windower cam"):
        Windower("cam", **options)
