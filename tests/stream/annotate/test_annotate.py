"""`emostream annotate`: against the offline reference, read back by other programs, killed and resumed."""

import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import parselmouth
import psutil
import pytest
from praatio import textgrid
from pyarrow import parquet
from pympi.Elan import Eaf

from emostream.inference.recognizer import Recognizer
from emostream.labels import DEFAULT_LABELS
from emostream.media import iter_frames, read_audio
from emostream.model.presets import from_preset
from stream.annotate import report, timeline
from stream.annotate.annotator import Annotator
from stream.annotate.files import find
from stream.annotate.outputs import write
from stream.annotate.settings import Settings
from stream.annotate.worker import Job, Worker
from stream.commands.cli import main
from stream.commands.offline import infer
from stream.pubsub import recording
from stream.pubsub.messages import Label, Reasoning
from stream.serve.model import ModelConfig, load
from stream.windows.config import InferenceConfig
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream import events
from tests.stream.rigs import until
from training.synth.media import write_mp4

pytestmark = pytest.mark.timeout(1200)
WAIT_S = 400.0
DEMO = Path(str(files("stream") / "assets" / "demo.mp4"))
SMALL = {"size": (64, 48), "fps": 10}
FILES = {
    "both.mp4": (Video(duration_s=7.3), Audio(duration_s=7.3, sound=noise())),
    "sparse_video.mp4": (Video(duration_s=6.2, fps=1.5), None),
    "sound.wav": (None, Audio(duration_s=5.7, codec="pcm_s16le", sound=noise())),
    "late_video.mp4": (
        Video(duration_s=4, fps=10, start_s=3.0),
        Audio(duration_s=7, sound=noise()),
    ),
    "short.mp4": (Video(duration_s=2.2, fps=10), Audio(duration_s=2.2, sound=noise())),
    "video_ends_early.mkv": (
        Video(duration_s=3, fps=10),
        Audio(duration_s=8, sound=noise(), codec="pcm_s16le"),
    ),
}


@pytest.fixture(scope="module")
def tiny():
    return from_preset("tiny", seed=1)


def settings(**changes) -> Settings:
    given = {"model": ModelConfig(), "inference": InferenceConfig(), "reasons": "none"} | changes
    return Settings(**given)


@pytest.mark.parametrize(
    ("name", "hop_steps"), [(name, 3) for name in FILES] + [("both.mp4", 1), ("short.mp4", 1)]
)
def test_labels_are_those_of_the_offline_reference(tmp_path, tiny, name, hop_steps):
    path = write_media(tmp_path / name, *FILES[name])
    config = InferenceConfig(hop_steps=hop_steps)
    annotator = Annotator(settings(inference=config), Recognizer(*tiny))
    found = annotator.annotate(path, "x").events
    reference = list(infer(path, *tiny, config, DEFAULT_LABELS, source="x"))
    assert reference
    assert [label.window for label in found] == [label.window for label in reference]
    for label, expected in zip(found, reference, strict=True):
        assert label.scores == pytest.approx(expected.scores, abs=1e-4)
        assert label.smoothed.scores == pytest.approx(expected.smoothed.scores, abs=1e-4)
        assert label.modalities == expected.modalities
        assert label.frames_used == expected.frames_used
        assert label.topic == "emotion.x.label"
    assert [label.seq for label in found] == list(range(len(found)))


@pytest.mark.parametrize(("reasons", "at"), [("none", []), ("changes", [8]), ("every", [8, 10])])
def test_reasons_are_given_where_they_are_asked_for(tmp_path, reasons, at):
    clip = write_media(tmp_path / "a.wav", None, Audio(duration_s=5.7, codec="pcm_s16le"))
    model = Recognizer(*from_preset("tiny", seed=1), max_new_tokens=8)
    inference = InferenceConfig(reason_every_s=1.0, hysteresis=0.99)  # never changes
    found = Annotator(settings(inference=inference, reasons=reasons), model).annotate(clip, "x")
    explained = [e for e in found.events if isinstance(e, Reasoning)]
    assert [reasoning.window.id for reasoning in explained] == at
    assert all(reasoning.done for reasoning in explained)
    labels = {e.window.id: e for e in found.events if isinstance(e, Label)}
    for reasoning in explained:
        assert reasoning.agrees_with_label == (
            reasoning.answer == labels[reasoning.window.id].label
        )


def test_runs_follow_the_rolling_label_on_the_medias_clock():
    tops = {8: "happy", 9: "happy", 10: "sad", 13: "sad"}
    labels = [events.label(window_id=k, top=top) for k, top in tops.items()]
    assert timeline.runs(labels, 0.5, 6.3) == [
        timeline.Run(0.0, 4.5, "happy"),
        timeline.Run(4.5, 5.0, "sad"),
        timeline.Run(6.0, 6.3, "sad"),  # two windows are missing; the file ends within the last
    ]
    assert timeline.shares(timeline.runs(labels, 0.5, 6.5))["happy"] == pytest.approx(4.5 / 5.5)
    reasons = [events.reasoning(window_id=8, think="a"), events.reasoning(window_id=10, think="b")]
    assert timeline.reasons(reasons, 6.3) == [
        timeline.Run(0.0, 4.0, "happy: a"),
        timeline.Run(4.0, 5.0, "happy: b"),
    ]


def test_elan_and_praat_read_the_times_of_the_media(tmp_path, tiny):
    clip = write_media(tmp_path / "a.wav", None, Audio(duration_s=9.7, codec="pcm_s16le"))
    asked = settings(formats=("eaf", "textgrid"))
    found = Annotator(asked, Recognizer(*tiny)).annotate(clip, "x")
    labels = [
        events.label(window_id=label.window.id, top=("happy", "sad")[label.window.id // 4 % 2])
        for label in found.events
    ]
    reasoning = events.reasoning(think='Er sagt "ja"\nund lacht – \x07laut.')
    found.events = [events.stamped(event) for event in (*labels, reasoning)]
    assert write(found, asked, str(clip), "a.wav", tmp_path) == ["a.wav.eaf", "a.wav.TextGrid"]
    expected = timeline.runs(labels, 0.5, found.duration_s)
    assert len(expected) == 3
    eaf = Eaf(tmp_path / "a.wav.eaf")
    assert [(s / 1000, e / 1000, v) for s, e, v in eaf.get_annotation_data_for_tier("emotion")] == [
        (pytest.approx(run.start_s, abs=5e-4), pytest.approx(run.end_s, abs=5e-4), run.label)
        for run in expected
    ]
    [(start_ms, end_ms, text)] = eaf.get_annotation_data_for_tier("reasons")
    assert (start_ms, end_ms, text) == (0, 4000, 'happy: Er sagt "ja" und lacht – laut.')
    [linked] = eaf.get_linked_files()
    assert linked["MEDIA_URL"] == clip.as_uri()
    praat = parselmouth.read(str(tmp_path / "a.wav.TextGrid"))
    sound = parselmouth.Sound(str(clip))
    assert praat.xmax == pytest.approx(sound.xmax, abs=1 / 16000)
    tier = parselmouth.praat.call(praat, "Get number of intervals", 1)
    ends = [
        parselmouth.praat.call(praat, "Get end time of interval", 1, k + 1) for k in range(tier)
    ]
    assert ends[: len(expected)] == pytest.approx([run.end_s for run in expected])
    grid = textgrid.openTextgrid(str(tmp_path / "a.wav.TextGrid"), includeEmptyIntervals=False)
    assert [entry.label for entry in grid.getTier("emotion").entries] == [r.label for r in expected]
    assert grid.getTier("reasons").entries[0].label == text


@pytest.fixture(scope="module")
def visit(tmp_path_factory) -> Path:
    """A silent, empty room for 3 s; somebody who speaks for 4 s and is quiet for 1 s; the room."""
    path = tmp_path_factory.mktemp("visit") / "visit.mp4"
    frames = np.stack([frame.rgb for frame in iter_frames(DEMO)])[: round(10 * 12.5)]
    frames[: round(3 * 12.5)] = 90
    frames[round(8 * 12.5) :] = 90
    pcm = np.zeros(160_000, np.float32)
    pcm[48_000:112_000] = read_audio(DEMO, 0.5, 4.5).pcm
    write_mp4(path, frames, pcm, 12.5, 16_000)
    return path


def test_who_is_there_and_who_speaks_are_tiers_columns_and_bands(tmp_path, visit):
    asked = settings(
        inference=InferenceConfig(people=1), formats=("jsonl", "csv", "eaf", "textgrid")
    )
    row = Worker(Job(asked, asked.digest(), str(tmp_path))).annotate(find([str(visit)])[0])
    assert not row.error
    reference = list(
        infer(visit, *load(asked.model), asked.inference, DEFAULT_LABELS, source="visit")
    )
    found = list(recording.read(tmp_path / "visit.mp4.jsonl"))
    assert [(e.window.id, e.people, e.face, e.absent) for e in found] == [
        (e.window.id, e.people, e.face, e.absent) for e in reference
    ]
    for label, expected in zip(found, reference, strict=True):
        assert label.scores == pytest.approx(expected.scores, abs=1e-4)
    eaf = Eaf(tmp_path / "visit.mp4.eaf")
    before, there, after = eaf.get_annotation_data_for_tier("people")
    assert (before[2], there[2], after[2]) == ("nobody", "1 person", "nobody")
    assert before[0] == 0
    assert (before[1], there[1]) == (there[0], after[0])
    assert there[0] == pytest.approx(3000, abs=500)
    assert there[1] == pytest.approx(8000, abs=1000)  # out of sight for a moment
    assert after[1] == pytest.approx(10_000, abs=100)
    spoken = eaf.get_annotation_data_for_tier("speech")
    assert {text for _, _, text in spoken} == {"speech"}
    assert 2900 < spoken[0][0] < 4000
    assert 6000 < spoken[-1][1] < 7300
    grid = textgrid.openTextgrid(str(tmp_path / "visit.mp4.TextGrid"), includeEmptyIntervals=False)
    assert [len(grid.getTier(name).entries) for name in ("people", "speech")] == [3, len(spoken)]
    with (tmp_path / "visit.mp4.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["people"] for line in lines] == [str(label.people) for label in found]
    assert {line["absent_video"] for line in lines} == {"", "nobody visible"}
    for line, label in zip(lines, found, strict=True):
        assert (line["face_track"] == "") == (label.face is None)
        if label.face is not None:
            assert float(line["face_box_left"]) == label.face.box[0]
    [summary] = report.table([row], DEFAULT_LABELS)
    assert summary["people_most"] == 1
    assert summary["visible_s"] == pytest.approx(5, abs=1)
    assert 2.5 < summary["speech_s"] < 4.2
    report.write_html(tmp_path / "report.html", [row], DEFAULT_LABELS, "tiny")
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="nobody"><title>') == 2
    assert page.count('class="speech"><title>') == len(spoken)


def test_a_file_with_nobody_in_it_has_tiers_and_no_labels(tmp_path, tiny):
    path = write_media(tmp_path / "room.mp4", Video(duration_s=5, **SMALL))
    asked = settings(inference=InferenceConfig(people=1), formats=("jsonl", "csv", "eaf"))
    found = Annotator(asked, Recognizer(*tiny)).annotate(path, "room")
    assert found.events == []
    assert found.stats.problems == ["no label for 3 windows: nobody in the picture"]
    assert write(found, asked, str(path), "room", tmp_path) == ["room.jsonl", "room.eaf"]
    eaf = Eaf(tmp_path / "room.eaf")
    [(start_ms, end_ms, text)] = eaf.get_annotation_data_for_tier("people")
    assert (start_ms, text) == (0, "nobody")
    assert end_ms == pytest.approx(5000, abs=100)
    assert "speech" not in eaf.get_tier_names()


def test_files_are_found_by_folder_glob_and_name(tmp_path):
    for name in ("a.MP4", "sub/b.wav", "sub/notes.txt", ".hidden/c.mp4", "odd name [1].xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def names(*paths: str) -> list[str]:
        return [file.name for file in find([str(tmp_path / path) for path in paths])]

    assert names("") == ["a.MP4", "sub/b.wav"]
    assert names("sub/*.wav", "odd name [1].xyz") == ["b.wav", "odd name [1].xyz"]
    assert names("a.MP4", "a.*") == ["a.MP4"]


def test_workers_read_and_write_through_fsspec(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    clip = write_media(
        tmp_path / "a.wav", None, Audio(duration_s=4.2, codec="pcm_s16le", sound=noise())
    )
    memory.put(str(clip), "/in/deep/a.wav")
    [file] = find(["memory://in"])
    assert file.name == "deep/a.wav"
    asked = settings(formats=("jsonl", "eaf"))
    try:
        worker = Worker(Job(asked, asked.digest(), "memory://out"))
        row = worker.annotate(file)
        assert not row.error
        assert sorted(memory.find("/out")) == [
            "/out/.rows/deep/a.wav.json",
            "/out/deep/a.wav.eaf",
            "/out/deep/a.wav.jsonl",
        ]
        memory.get_file("/out/deep/a.wav.jsonl", str(tmp_path / "a.jsonl"))
        assert len(list(recording.read(tmp_path / "a.jsonl"))) == row.windows
    finally:
        memory.store.clear()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: there is no such media file or folder of them"),
        (["a/x.wav", "b/x.wav"], "would have the same name, x.wav"),
        (["a", "--format", "jsonl,xlsx"], "--format xlsx: wanted some of"),
        (["a", "--jobs", "0"], "--jobs 0: wanted 1 or more"),
        pytest.param(
            ["a", "--model", "no-such-folder/model"], "no-such-folder/model", marks=pytest.mark.slow
        ),
        (["gopher://x/a.wav"], "gopher"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, monkeypatch, capfd, arguments, says):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.wav").write_bytes(b"x")
    assert main(["annotate", *arguments, "--out", "out"]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "of 1 files" not in line]
    assert len(said) == 1, said
    assert says in said[0]


class _Report(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.bars, self.links = "", 0, []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.bars += tag == "rect"
        self.links += [value for name, value in attributes if name in ("src", "href")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty files of mixed kinds, three of them unusable."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "sub").mkdir()
    for number, suffix in enumerate(("mp4", "mkv", "avi", "mov", "webm") * 2):
        video = Video(
            duration_s=4.2 + 0.4 * number,
            codec="libvpx" if suffix == "webm" else "libx264",
            size=(64, 48),
            fps=10,
        )
        sound = Audio(
            duration_s=4.2, codec="libopus" if suffix == "webm" else "aac", sound=noise(number)
        )
        write_media(folder / "sub" / f"{number}.{suffix}", video, sound if number % 3 else None)
    for number, (suffix, codec) in enumerate(
        [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus")]
    ):
        sound = Audio(duration_s=3.0 + number, codec=codec, sound=noise(number), layout="stereo")
        write_media(folder / f"{number}.{suffix}", None, sound)
    for name in ("ünïcode & <odd>.mp4", "cut.mkv", "plain.mp4"):
        write_media(folder / name, Video(duration_s=6, **SMALL))
        if name == "cut.mkv":
            os.truncate(folder / name, (folder / name).stat().st_size // 2)
    (folder / "broken.mp4").write_bytes(random.Random(0).randbytes(5000))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no media file\n")
    (folder / "notes.txt").write_text("not taken\n")
    return folder


COMMAND = (sys.executable, "-P", "-m", "stream.commands.cli", "annotate")
ASKED = ("--format", "jsonl,csv,eaf,textgrid,parquet", "--jobs", "2", "--hop-steps", "4")
ASKED += ("--people", "0", "--model", "tiny")  # patterns and noise


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(folder), "--out", str(out), *ASKED],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def clean(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run from beginning to end: its results, and what it said."""
    out = tmp_path_factory.mktemp("clean") / "out"
    with start(folder, out) as process:
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, errors  # three files cannot be read
    return out, errors


@pytest.mark.slow
def test_broken_files_are_named_counted_and_passed_over(clean: tuple[Path, str]) -> None:
    out, errors = clean
    assert "17 files annotated, 0 were done before, 3 failed" in errors
    for name in ("broken.mp4", "empty.wav", "text.mp4"):
        assert sum(line.startswith(f"{name}: ") for line in errors.splitlines()) == 1
    rows = parquet.read_table(out / "summary.parquet").to_pylist()
    assert len(rows) == 20
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    by_name = {row["file"]: row for row in rows}
    assert {name for name, row in by_name.items() if row["error"]} == {
        "broken.mp4",
        "empty.wav",
        "text.mp4",
    }
    assert "header says" in by_name["cut.mkv"]["problems"]
    for name, row in by_name.items():
        if not row["error"]:
            found = list(recording.read(out / f"{name}.jsonl"))
            assert row["windows"] == sum(isinstance(e, Label) for e in found)
            assert row["reasons"] == sum(isinstance(e, Reasoning) for e in found) >= 1
            assert sum(row[f"share_{label}"] for label in DEFAULT_LABELS) == pytest.approx(1)
    report = _Report()
    report.feed((out / "report.html").read_text(encoding="utf-8"))
    assert all(name in report.text for name in by_name)
    assert report.bars >= 17
    assert not report.links  # nothing is fetched


@pytest.mark.slow
def test_killed_at_random_and_resumed_gives_the_same_bytes(
    folder: Path, clean: tuple[Path, str], tmp_path: Path
) -> None:
    out, seed = tmp_path / "out", random.Random(5)
    done: dict[Path, int] = {}
    for wanted in sorted(seed.sample(range(1, 15), 2)):
        with start(folder, out) as process:
            until(lambda wanted=wanted: len(rows(out)) >= wanted, WAIT_S, process)
            time.sleep(seed.random() * 0.2)
            orphans = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=WAIT_S)
        assert not psutil.wait_procs(orphans, timeout=WAIT_S)[1]
        for path, changed_ns in done.items():
            assert path.stat().st_mtime_ns == changed_ns, f"{path.name} was written twice"
        for row in rows(out):
            if b'"error":""' in row.read_bytes():
                done[row] = row.stat().st_mtime_ns
    assert done
    with start(folder, out) as process:
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert f"{17 - len(done)} files annotated, {len(done)} were done before, 3 failed" in errors
    assert tree(out) == tree(clean[0])


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_a_changed_file_is_done_again(
    folder: Path, clean: tuple[Path, str], tmp_path: Path
) -> None:
    out, media = tmp_path / "out", tmp_path / "media"
    shutil.copytree(clean[0], out)
    shutil.copytree(folder, media)  # with its times, so that nothing has changed
    os.utime(media / "plain.mp4", (1e9, 1e9))
    os.utime(media / "cut.mkv", (1e9, 1e9))
    with start(media, out) as process:
        until(lambda: psutil.Process(process.pid).children(), WAIT_S, process)
        psutil.Process(process.pid).children()[0].kill()
        _, errors = process.communicate(timeout=WAIT_S)
    assert "2 files annotated, 15 were done before, 3 failed" in errors


def rows(out: Path) -> list[Path]:
    return list((out / ".rows").rglob("*.json"))
