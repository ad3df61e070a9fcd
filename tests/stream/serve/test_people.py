"""Several people of one source: a name, labels and reasons for each."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import emostream
from emostream.errors import ConfigError, EmostreamError
from emostream.media import iter_frames, read_audio
from stream.commands.cli import main
from stream.pubsub.messages import Label, Status, decode_payload
from stream.pubsub.recording import Recorder, read, write_table
from stream.transport.events import Event
from stream.transport.protocol import Hello
from stream.view.plot import plot
from stream.view.state import ViewState
from stream.windows.config import InferenceConfig
from stream.windows.person_names import check_person_names
from stream.windows.sorting import Sorter
from tests.stream.commands.test_offline import DEMO
from tests.stream.live_rig import NOBODY, Live, live, run_command
from training.synth.media import write_mp4

FPS = 12.5
COMES_S, GOES_S = 4.2, 8.1


@pytest.fixture(scope="module")
def visit(tmp_path_factory) -> Path:
    """13 s of somebody; from `COMES_S` to `GOES_S` somebody else is beside her."""
    frames = np.stack([frame.rgb for frame in iter_frames(DEMO)])[: round(13 * FPS)]
    second = frames[::-1] // (2, 1, 1)  # in other clothes
    second[: round(COMES_S * FPS)] = 90
    second[round(GOES_S * FPS) :] = 90
    path = tmp_path_factory.mktemp("people") / "visit.mp4"
    pair = np.concatenate((frames, second.astype(np.uint8)), axis=2)
    write_mp4(path, pair, read_audio(DEMO, 0, 13).pcm, FPS, 16_000)
    return path


@pytest.fixture(scope="module")
def ran(visit) -> Iterator[Live]:
    """What `run --people all` says of them."""
    with live("--source", f"cam0={visit}", "--people", "all", "--pace", "max") as running:
        running.until(lambda e: isinstance(e, Status))
        running.until_stopped()
        assert running.wait() == 0
        yield running


def test_each_has_the_labels_that_infer_gives(ran, visit, tmp_path):
    out = tmp_path / "reference.jsonl"
    options = ["--people", "2", "--name", "cam0", "--hop-steps", "3"]  # a third of them
    assert main(["infer", *NOBODY, str(visit), "--out", str(out), *options]) == 0
    reference = [decode_payload(line) for line in out.read_bytes().splitlines()]
    labels = {(label.source, label.window.id): label for label in ran.labels()}
    assert [label.source for label in reference].count("cam0") == 7
    assert [label.source for label in reference].count("cam0-p2") == 3
    assert {(other.source, other.window.id) for other in reference} <= set(labels)
    for other in reference:
        label = labels[other.source, other.window.id]
        assert label.scores == pytest.approx(other.scores, abs=1e-4)
        assert (label.face.track, label.voice) == (other.face.track, other.voice)


def test_each_comes_and_goes_on_topics_of_their_own(ran):
    first, second = ran.labels("cam0"), ran.labels("cam0-p2")
    assert {label.face.track for label in first} == {1}
    assert {label.face.track for label in second} == {2}
    assert first[0].scores != second[0].scores
    assert 0 < second[0].timestamp_s - COMES_S <= 1.0
    assert 0 < second[-1].timestamp_s - GOES_S <= 1.0
    ends = [
        (event.source, event.timestamp_s)
        for event in ran.events
        if isinstance(event, Status) and event.state == "stopped"
    ]
    assert [source for source, _ in ends] == ["cam0-p2", "cam0"]
    away = [s.detail for s in ran.statuses() if s.source == "cam0-p2"]
    assert "not in the picture" in away
    voices = {label.timestamp_s: label.voice for label in first}
    assert voices[6.0] == "unattributed"
    assert voices[13.0] == "attributed"
    assert {label.left_out for label in (*first, *second)} == {0}


def test_each_is_explained_about_a_window_of_their_own(ran):
    for source in ("cam0", "cam0-p2"):
        labels = {label.window.id: label for label in ran.labels(source)}
        answers = [r for r in ran.reasonings() if r.source == source and r.done]
        assert answers
        for answer in answers:
            agrees = answer.answer == labels[answer.window.id].label
            assert answer.agrees_with_label == agrees


def test_what_was_said_is_recorded_tabled_and_shown(ran, tmp_path):
    state = ViewState()
    with Recorder(tmp_path / "said.jsonl") as recorder:
        for event in ran.events:
            recorder.write(event)
            state.update(event)
    assert list(read(tmp_path / "said.jsonl")) == ran.events
    assert list(state.sources) == ["cam0", "cam0-p2"]
    assert state.over
    plot(tmp_path / "said.jsonl", tmp_path / "said.svg")
    assert "cam0-p2" in (tmp_path / "said.svg").read_text(encoding="utf-8")
    assert write_table(tmp_path / "said.jsonl", tmp_path / "said.csv")
    assert "cam0-p2" in (tmp_path / "said.csv").read_text(encoding="utf-8")


def test_from_python(visit, ran):
    events = emostream.recognize(visit, model="tiny", people=2, reason_every_s=0)
    assert {type(event) for event in events} == {Label}
    mine = [event for event in events if event.source == "visit-p2"]
    assert [label.scores for label in mine] == [
        pytest.approx(label.scores, abs=1e-4) for label in ran.labels("cam0-p2")
    ]


def test_a_person_has_no_other_source_s_name(visit):
    sources = ["--source", f"cam0={visit}", "--source", f"cam0-p2={visit}"]
    refused = run_command("run", *sources, "--people", "2", "--bind", "tcp://127.0.0.1:*")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert "source cam0-p2: with --people 2 that is the name of a person of cam0" in line
    check_person_names(["cam0", "cam0-p3", "b"], 2)
    with pytest.raises(ConfigError, match="of 29 letters at most"):
        check_person_names(["x" * 30], 2)


@pytest.mark.parametrize("name", ["cam0-p2", "x" * 30])
def test_nobody_connects_by_the_name_of_a_person(name, caplog):
    sorter = Sorter(InferenceConfig(people=2), {"cam0": "host"}, dynamic=True)
    hello = Hello(name, ("video",), 7, "host", False)
    sorter.take(Event(hello=hello, message=hello, received_s=0.0))
    assert list(sorter.states) == ["cam0"]
    assert "is ignored" in caplog.text


@pytest.mark.parametrize("people", ["9", "-1", "two"])
def test_a_number_of_people_that_cannot_be_is_refused(visit, people):
    refused = run_command("run", "--source", str(visit), f"--people={people}")
    assert refused.returncode == 2
    assert "wanted 0 to 8, or all" in refused.stderr
    if people != "two":
        with pytest.raises(EmostreamError, match="--people"):
            InferenceConfig(people=int(people))
