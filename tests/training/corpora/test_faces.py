"""FER2013, FER+ and mosaics of faces, in small files of their layouts."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS
from training.corpora.candidates import Options
from training.corpora.index import index
from training.data.manifest import read_manifest
from training.data.stills import read_still

SEVEN = Options(labels=DEFAULT_LABELS)
VOTED = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTED = (*VOTED, "unknown", "NF")
#: A face each: part, FER2013's label, votes.
FACES = (
    ("Training", "angry", (4, 0, 0, 1, 3, 2, 0, 0, 0, 0)),
    ("Training", "happy", (0, 9, 1, 0, 0, 0, 0, 0, 0, 0)),
    ("PublicTest", "sad", (0, 0, 0, 5, 5, 0, 0, 0, 0, 0)),
    ("PrivateTest", "fear", (0, 0, 4, 0, 0, 0, 5, 0, 1, 0)),
    ("PrivateTest", "neutral", (1, 0, 0, 0, 0, 0, 0, 0, 2, 7)),
    ("PrivateTest", "happy", (0, 10, 0, 0, 0, 0, 0, 0, 0, 0)),  # the same picture as the second
    ("Training", "neutral", (2, 0, 0, 0, 0, 0, 0, 8, 0, 0)),
)
CODES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    out = [np.kron(rng.integers(0, 256, (6, 6)), np.ones((8, 8))).astype(np.uint8) for _ in FACES]
    out[5] = out[1]
    return out


def write_table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def mosaic(tiles, side, across):
    """Tiles row by row, as the corpora have them."""
    out = np.zeros((-(-len(tiles) // across) * side, across * side), np.uint8)
    for k, tile in enumerate(tiles):
        y, x = k // across * side, k % across * side
        out[y : y + side, x : x + side] = tile
    return out


@pytest.fixture
def published(tmp_path, pictures):
    """FER2013's table and that of FER+ beside it."""
    folder = tmp_path / "fer"
    folder.mkdir()
    rows = [
        (CODES.index(label), " ".join(map(str, picture.ravel())), part)
        for (part, label, _), picture in zip(FACES, pictures, strict=True)
    ]
    write_table(folder / "fer2013.csv", ("emotion", "pixels", "Usage"), rows)
    votes = [(part, f"fer{k:07d}.png", *votes) for k, (part, _, votes) in enumerate(FACES)]
    write_table(folder / "fer2013new.csv", ("Usage", "Image name", *VOTED), votes)
    return folder


@pytest.fixture
def mosaics(tmp_path, pictures):
    """The same faces in a mosaic four tiles wide."""
    folder = tmp_path / "mosaics"
    folder.mkdir()
    cv2.imwrite(str(folder / "ferplus_000.png"), mosaic(pictures, 48, 4))
    header = ("mosaic", "tile", "image", "usage", "fer2013_label", *VOTED, "pixel_md5")
    rows = [
        ("ferplus_000.png", k, f"fer{k}.png", part, label, *votes, f"{pictures[k].sum():x}")
        for k, (part, label, votes) in enumerate(FACES)
    ]
    write_table(folder / "ferplus.csv", header, rows)
    return folder


@pytest.mark.parametrize("layout", ["published", "mosaics"])
def test_votes_labels_parts_and_duplicates(layout, request, pictures, tmp_path):
    report = index("ferplus", request.getfixturevalue(layout), tmp_path / "m.jsonl", SEVEN)
    rows = sorted(read_manifest(tmp_path / "m.jsonl"), key=lambda row: str(row.meta["fer2013"]))
    found = [(r.split, r.label, dict(r.votes), r.meta["fer2013"]) for r in rows]
    assert found == [
        ("train", "neutral", {"neutral": 4, "sad": 1, "angry": 3, "disgust": 2}, "angry"),
        ("test", "fear", {"surprise": 4, "fear": 5}, "fear"),
        ("test", "happy", {"happy": 10}, "happy"),
        ("validation", None, {"sad": 5, "angry": 5}, "sad"),  # divided: votes, and no label
    ]
    assert rows[1].meta["unknown"] == 1
    # What is in two parts stays in the test; nobody's face and what was not asked for are left out.
    assert sorted(s.reason for s in report.skipped) == [
        "also in test",
        "label contemptuous not asked for",
        "no face, by most votes",
    ]
    by_label = {row.meta["fer2013"]: row for row in rows}
    for k, (_, label, _) in enumerate(FACES):
        if label in ("angry", "fear", "sad"):
            picture = read_still(by_label[label])
            np.testing.assert_array_equal(picture, np.repeat(pictures[k][..., None], 3, 2))


def test_without_votes_fer2013_has_its_own_labels(published, tmp_path):
    (published / "fer2013new.csv").unlink()
    index("ferplus", published, tmp_path / "m.jsonl", SEVEN)
    rows = read_manifest(tmp_path / "m.jsonl")
    assert sorted(str(row.label) for row in rows) == sorted(
        label for k, (_, label, _) in enumerate(FACES) if k != 1
    )
    assert not any(row.votes for row in rows)


def test_webfaces(tmp_path):
    rng = np.random.default_rng(1)
    tiles = [rng.integers(0, 256, (96, 96), np.uint8) for _ in range(3)]
    cv2.imwrite(str(tmp_path / "webfaces_000.png"), mosaic([*tiles, tiles[0]], 96, 2))
    rows = [("webfaces_000.png", k, "happiness", f"p{k}") for k in range(4)]
    write_table(
        tmp_path / "webfaces.csv",
        ("mosaic", "tile", "emotion", "person"),
        [*rows, ("webfaces_001.png", 0, "fear", "p9")],
    )
    report = index("webfaces", tmp_path, tmp_path / "m.jsonl")
    found = read_manifest(tmp_path / "m.jsonl")
    assert [(r.label, r.actor, r.region) for r in found] == [
        ("happy", "p0", (0, 0, 96, 96)),
        ("happy", "p1", (96, 0, 96, 96)),
        ("happy", "p2", (0, 96, 96, 96)),
    ]
    # Without a digest in the table, pixels are compared.
    assert {(s.name, s.reason) for s in report.skipped} == {
        ("webfaces_000.png#96,96", "the same picture twice"),
        ("webfaces_001.png#0", "missing"),
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("fer2013new.csv", "contempt", "scorn", "the column 'contempt' is missing"),
        ("fer2013new.csv", "fer0000000.png,4", "fer0000000.png,four", "wanted whole numbers"),
        ("fer2013new.csv", FACES[-1][0] + ",fer0000006.png", None, "of different versions"),
        ("fer2013.csv", "PublicTest", "Spare", r"fer2013.csv:4: unknown label 'Spare'"),
        ("fer2013.csv", "0,", "0,7 ", "a face has 2305 pixels; wanted 2304"),
    ],
)
def test_what_is_wrong_is_named(published, tmp_path, file, old, new, said):
    path = published / file
    text = path.read_text()
    if new is None:  # the last line is missing
        path.write_text(text[: text.index(old)])
    else:
        path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=said):
        index("ferplus", published, tmp_path / "m.jsonl", SEVEN)


@pytest.mark.parametrize("kind", ["ferplus", "webfaces"])
def test_a_folder_without_them(kind, tmp_path):
    with pytest.raises(ConfigError, match=r"wanted .*\.csv"):
        index(kind, tmp_path, tmp_path / "m.jsonl")


def test_a_tile_outside_its_mosaic_is_left_out(mosaics, tmp_path):
    text = (mosaics / "ferplus.csv").read_text()
    (mosaics / "ferplus.csv").write_text(text.replace("ferplus_000.png,0,", "ferplus_000.png,9,"))
    report = index("ferplus", mosaics, tmp_path / "m.jsonl", SEVEN)
    assert any("the picture has 192x96 pixels" in s.reason for s in report.skipped)


def test_a_table_that_joins_corpora_keeps_their_speakers_apart(tmp_path):
    from tests.training.clips import write_clip

    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.wav", video=False)
    write_table(
        tmp_path / "audio.csv",
        ("path", "corpus", "label", "speaker", "sex", "split"),
        [("a.wav", "one", "happy", "01", "f", "train"), ("b.wav", "two", "sad", "01", "", "test")],
    )
    index("folder", tmp_path / "audio.csv", tmp_path / "m.jsonl")
    rows = read_manifest(tmp_path / "m.jsonl")
    assert [(r.actor, r.split, dict(r.meta)) for r in rows] == [
        ("two-01", "test", {"corpus": "two"}),
        ("one-01", "train", {"corpus": "one", "sex": "f"}),
    ]


def test_pictures_in_a_folder_for_each_label(tmp_path, pictures):
    for k, label in enumerate(("happy", "sad")):
        (tmp_path / label).mkdir()
        cv2.imwrite(str(tmp_path / label / f"{k}.png"), pictures[k])
    (tmp_path / "sad" / "2.jpg").write_bytes(b"no picture")
    report = index("folder", tmp_path, tmp_path / "m.jsonl")
    assert [(r.label, r.is_still) for r in read_manifest(tmp_path / "m.jsonl")] == [
        ("happy", True),
        ("sad", True),
    ]
    assert "wanted a picture" in report.skipped[0].reason


def test_rows_say_only_what_can_be(tmp_path):
    row = read_manifest_row(tmp_path, {"region": [0, 0, 4, 4], "votes": {"sad": 2}})
    assert row.region == (0, 0, 4, 4)
    assert row.votes == {"sad": 2}
    for changes, said in (
        ({"region": [0, 0, 4]}, "wanted x, y, width, height"),
        ({"region": [0, 0, 0, 4]}, "wanted x, y, width, height"),
        ({"path": "a.mp4", "region": [0, 0, 4, 4]}, "in pixels of a picture"),
        ({"votes": {"sad": -1}}, "wanted numbers from 0 on"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_manifest_row(tmp_path, changes)
    assert replace(row, region=None).name == "a.png"


def read_manifest_row(folder, changes):
    line = {"path": "a.png", "label": "sad", "split": "train", **changes}
    (folder / "one.jsonl").write_text(json.dumps(line) + "\n")
    return read_manifest(folder / "one.jsonl")[0]
