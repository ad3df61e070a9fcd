import json
from pathlib import Path

import pytest

from emostream.errors import ConfigError
from training.data.cues import Cues, Informative
from training.data.manifest import Row, count_labels, read_manifest, write_manifest

FULL = {
    "path": "clips/a.mp4",
    "label": "happy",
    "split": "train",
    "actor": "07",
    "start_s": 0.5,
    "end_s": 4,
    "cues": {
        "face": {"AU12": 0.8},
        "voice": {"pitch": 1.2},
        "informative": {"video": True, "audio": False},
    },
    "answer": "glad, relieved",
    "reason": "The lip corners rise.",
    "meta": {"style": 3},
}


def save(folder: Path, *lines: object) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines),
        encoding="utf-8",
    )
    return path


def test_a_row_is_read_with_everything_in_it(tmp_path):
    (row,) = read_manifest(save(tmp_path, FULL))
    assert row == Row(
        path=tmp_path / "clips" / "a.mp4",
        label="happy",
        split="train",
        actor="07",
        start_s=0.5,
        end_s=4,
        cues=Cues({"AU12": 0.8}, {"pitch": 1.2}, Informative(True, False)),
        answer="glad, relieved",
        reason="The lip corners rise.",
        meta={"style": 3},
    )


def test_write_is_the_inverse_of_read_from_any_folder(tmp_path):
    rows = read_manifest(save(tmp_path, FULL, {"path": "b.mp4", "label": "sad", "split": "test"}))
    moved = tmp_path / "elsewhere" / "deep" / "m.jsonl"
    assert write_manifest(moved, rows) == 2
    assert read_manifest(moved) == rows
    first, second = (json.loads(line) for line in moved.read_text().splitlines())
    assert first["path"] == "../../clips/a.mp4"
    assert list(second) == ["path", "label", "split", "actor", "start_s", "end_s", "cues"]


def test_a_corpus_can_be_moved_with_its_manifest(tmp_path):
    (tmp_path / "old").mkdir()
    save(tmp_path / "old", {"path": "b.mp4", "label": "sad", "split": "test"})
    (tmp_path / "old").rename(tmp_path / "new")
    (row,) = read_manifest(tmp_path / "new" / "manifest.jsonl")
    assert row.path == tmp_path / "new" / "b.mp4"


def test_labels_are_mapped_to_the_set_that_is_asked_for(tmp_path):
    path = save(tmp_path, {"path": "b.mp4", "label": "Sadness", "split": "test"})
    assert read_manifest(path, ("happy", "sad"))[0].label == "sad"
    with pytest.raises(ConfigError, match=r"manifest.jsonl:1: unknown label 'Sadness'; wanted one"):
        read_manifest(path, ("happy", "angry"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "wanted an object, found list"),
        ({"label": "sad", "split": "test"}, "the key 'path' is missing"),
        ({"path": "a", "label": "sad"}, "the key 'split' is missing"),
        ({"path": "", "label": "sad", "split": "test"}, "path is empty"),
        (
            {"path": "a", "label": None, "split": "test"},
            "wanted a label, an answer in words or a reason",
        ),
        ({"path": "a", "label": " ", "split": "test"}, "label is empty"),
        ({"path": "a", "label": 3, "split": "test"}, "label is 3; wanted str or null"),
        ({"path": "a", "label": "sad", "split": "test", "cue": {}}, "unknown key 'cue'"),
        ({"path": "a", "label": "sad", "split": "test", "start_s": True}, "start_s is True"),
        ({"path": "a", "label": "sad", "split": "test", "start_s": -1}, "start_s is -1"),
        ({"path": "a", "label": "sad", "split": "test", "start_s": 2, "end_s": 2}, "end_s is 2"),
        ({"path": "a", "label": "sad", "split": "test", "cues": {"face": {"AU0": 1}}}, "'AU0'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    path = save(tmp_path, FULL, "", line)
    with pytest.raises(ConfigError, match=said) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_no_manifest_and_an_empty_one_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the manifest: No such file"):
        read_manifest(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="has no rows"):
        read_manifest(save(tmp_path, ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is UTF-8 text"):
        read_manifest(tmp_path / "binary.jsonl")


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
    path = save(tmp_path, FULL)
    before = path.read_text()

    def rows():
        yield from read_manifest(path)
        raise RuntimeError("the generator failed")

    with pytest.raises(RuntimeError):
        write_manifest(path, rows())
    assert path.read_text() == before


def test_counts(tmp_path):
    rows = [
        Row(path=tmp_path / "a", label="sad", split="train"),
        Row(path=tmp_path / "b", label="sad", split="train"),
        Row(path=tmp_path / "c", label=None, answer="wistful", split="test"),
    ]
    assert count_labels(rows) == {"train": {"sad": 2}, "test": {"open": 1}}


def test_text_may_hold_any_line_separator(tmp_path):
    row = Row(path=tmp_path / "a", label="sad", split="train", reason="one\ntwo\u2028three\x85four")
    write_manifest(tmp_path / "m.jsonl", [row])
    assert read_manifest(tmp_path / "m.jsonl") == [row]


def test_a_folder_behind_a_link_stays_relative(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    row = Row(path=tmp_path / "link" / "a.mp4", label="sad", split="train")
    write_manifest(tmp_path / "link" / "m.jsonl", [row])
    assert json.loads((tmp_path / "link" / "m.jsonl").read_text())["path"] == "a.mp4"
