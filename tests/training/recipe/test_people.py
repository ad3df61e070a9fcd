"""Towers trained on people: what they are shown, that they learn, go on and end where they would have."""

import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from emostream import load_model
from emostream.errors import CheckpointError, ConfigError
from emostream.labels import DEFAULT_LABELS
from emostream.media import read_audio
from emostream.model.presets import from_preset
from emostream.model.towers import VoiceHeads
from emostream.people.voice_baseline import moments, speech_steps
from tests.training.clips import write_clip
from training.data.cues import Cues
from training.data.manifest import Row, read_manifest
from training.recipe import small
from training.recipe.loop import renew_norms, run_steps
from training.recipe.people_faces import augment_faces, soft_target
from training.recipe.people_rows import TOLD, neutral_talkers
from training.recipe.people_voices import augment_talk, begin_voices, heard
from training.recipe.tower_files import read_tower, write_tower
from training.recipe.voice_data import (
    LEVEL,
    Talks,
    Voices,
    levelled,
    log_mel,
    read_voices,
    spoken,
    whisper_scale,
)
from training.recipe.voice_heads import fit_voice_heads, heads_of
from training.recipe.voice_pitch import fit_pitch

PART = 0.001  # of the steps and clips of a run
VOTED = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def face(tmp_path, **changes):
    return Row(**{"path": tmp_path / "a.png", "label": "happy", "split": "train", **changes})


class TestFaces:
    def test_what_a_face_shows_by_its_votes(self, tmp_path):
        def target(**changes):
            found = soft_target(face(tmp_path, **changes))
            return (
                found if found is None else dict(zip(DEFAULT_LABELS, found.round(3), strict=True))
            )

        votes = {"happy": 6, "neutral": 3, "fear": 1}
        # One vote alone counts only where FER2013 says the same.
        assert target(votes=votes)["happy"] == pytest.approx(6 / 9, abs=1e-3)
        assert target(votes=votes)["fear"] == 0
        with_own = target(votes=votes, meta={"fer2013": "fear"})
        assert with_own["fear"] == pytest.approx(0.2 / 1.1, abs=1e-3)
        assert target(votes={"contemptuous": 9, "sad": 1}) is None
        assert target()["happy"] == pytest.approx(0.8 + 0.2 / 7, abs=1e-3)
        assert target(label="calm") is None

    def test_changes_leave_a_face_a_face(self):
        torch.manual_seed(0)
        rows = torch.arange(64, dtype=torch.uint8) * 3
        faces = rows[:, None].expand(64, 64).repeat(32, 1, 1)
        out = augment_faces(faces)
        assert out.shape == (32, 3, 64, 64)
        assert (out[0] - out[1]).abs().max() > 0.1
        # Turned by 15 degrees at most, what was bright below stays so.
        assert (
            out[..., 48:60, 20:44].mean((1, 2, 3)) > out[..., 4:16, 20:44].mean((1, 2, 3))
        ).all()


class TestVoices:
    @pytest.fixture
    def voices(self, tmp_path):
        """Two speakers of two corpora; each utterance has a mel value of its own."""
        rows, mels = [], []
        for number, (corpus, speaker, label) in enumerate(
            [("a", "1", "happy"), ("a", "1", "sad"), ("b", "2", "sad"), ("b", "2", "sad")]
        ):
            meta = {"corpus": corpus}
            rows.append(face(tmp_path, actor=speaker, label=label, meta=meta))
            mels.append(np.full((50, 128), number, np.float16))
        return Voices(
            rows=rows,
            begins=np.arange(5) * 50,
            mel=np.concatenate(mels),
            pitch=np.ones((200, 2), np.float16),
        )

    def test_log_mel_is_that_of_the_processor(self):
        _, processor = from_preset("small")
        pcm = np.random.default_rng(0).normal(0, 0.1, 64000).astype(np.float32)
        ours = whisper_scale(log_mel(pcm, processor.feature_extractor))
        torch.testing.assert_close(ours, processor.mel(pcm), atol=1e-4, rtol=0)

    def test_speech_is_trimmed_and_has_one_level(self):
        speech = np.random.default_rng(0).normal(0, 0.01, 16000).astype(np.float32)
        silence = np.zeros(16000, np.float32)
        for gain in (1, 20):
            sound = np.concatenate([silence, gain * speech, silence])
            found = levelled(sound, spoken(sound))
            assert abs(len(found) - 16000) <= 2 * 9 * 160
            heard = found[np.abs(found) > 0]
            assert np.sqrt((heard**2).mean()) == pytest.approx(LEVEL, rel=0.02)
        assert not len(levelled(silence, spoken(silence)))

    def test_a_window_is_talk_of_one_person_in_one_emotion(self, voices):
        talks = Talks(voices, range(4), seed=0)
        batch = talks.draw(6, 2, 130)
        assert batch["mel"].shape == (12, 130, 128)
        for mel, label, known, speaker in zip(
            batch["mel"], batch["label"], batch["known"], batch["speaker"], strict=True
        ):
            corpus, _ = talks.speakers[speaker]
            spoken = set(mel[mel[:, 0] == mel[:, 1]][:, 0].tolist())  # pauses are noise
            wanted = {("a", "happy"): {0}, ("a", "sad"): {1}, ("b", "sad"): {2, 3}}
            name = DEFAULT_LABELS[label]
            assert spoken <= wanted[corpus, name]
            labels = {DEFAULT_LABELS[k] for k in torch.nonzero(known)[:, 0]}
            assert labels == ({"happy", "sad"} if corpus == "a" else {"sad"})
        assert torch.equal(batch["speaker"][::2], batch["speaker"][1::2])

    def test_changes_keep_the_pitch_where_the_voice_is(self):
        torch.manual_seed(0)
        mel = torch.full((40, 128, 290), -6.0)
        mel[:, 40] = 0.0  # one partial below 1 kHz
        out, pitch = augment_talk(mel, torch.ones(40, 290, 2))
        assert out.shape == (40, 128, 256)
        assert pitch.shape == (40, 256, 2)
        for changed, octaves in zip(out, pitch[:, 0, 0] - 1, strict=True):
            assert int(changed[:70].mean(1).argmax()) == pytest.approx(
                40 * 2 ** float(octaves), abs=1.1
            )

    def test_a_tower_begins_as_the_one_that_heard_rendered_voices(self):
        ours, theirs = from_preset("small")[0], load_model("tiny")[0]
        begin_voices(ours, theirs)
        mel = torch.rand(2, 128, 100)
        with torch.inference_mode():
            level = mel.amax((1, 2), keepdim=True)
            wanted = theirs.model.audio_tower(mel - level + 1)
            found = ours.model.audio_tower(mel)[..., : wanted.shape[-1]]
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)

    def test_statistics_are_of_speech_alone(self):
        mel = torch.full((1, 4, 8), -1.0)
        mel[0, 2, 2:4] = 1.0
        weight = speech_steps(mel)
        assert weight.tolist() == [[0.0, 1.0, 0.0, 0.0]]
        mean, variance = moments(torch.tensor([[[1.0], [3.0], [5.0]]]), torch.tensor([[1.0, 1, 0]]))
        assert (mean.tolist(), variance.tolist()) == ([2.0], [1.0])
        steps = torch.ones(1, 50)  # a second
        found = {k: (torch.full((1, 50, 1), float(k)), steps) for k in range(3)}
        mean, _, seconds = heard(found, [2, 0, 1], 1.5)
        assert (mean.tolist(), seconds) == ([1.0], 2.0)
        assert heard(found, [], 5) is None


class Told:
    """Speech whose statistics tell its emotion, and some without speech: what a feature store knows of rows."""

    def __init__(self, width):
        self.width = width

    def voice(self, row):
        kind = DEFAULT_LABELS.index(row.label)
        mean = torch.randn(self.width, generator=torch.Generator().manual_seed(int(row.path.name)))
        mean[kind] += 5 if row.heard_s else 3
        if row.cues is not None:
            mean[-1] = 0.5 * row.cues.voice["pitch"]
        return torch.stack([mean, torch.full_like(mean, float(row.end_s > 1))])


def test_voice_heads_are_fitted_to_each_corpus_and_to_all():
    heads = VoiceHeads(9, 3 * len(DEFAULT_LABELS) + len(TOLD))
    pitch = [None, *(Cues({}, {"pitch": high}) for high in (-1.0, 0.0, 1.0))]
    rows = [
        face(
            Path(),
            path=Path(f"{k}"),
            label=label,
            meta={"corpus": corpus},
            end_s=1 + k % 10,
            cues=pitch[k % 4],
        )
        for corpus, labels in (("a", DEFAULT_LABELS), ("b", ("sad", "fear")))
        for k, label in enumerate(40 * labels)
    ]
    assert heads_of(rows) == heads.out_features
    store = Told(9)
    fit_voice_heads(heads, store, rows)
    talking = [row for row in rows if row.end_s > 1]
    voices = torch.stack([store.voice(row) for row in talking])
    with torch.inference_mode():
        tokens = heads.beside(torch.zeros(len(talking), 2, 9), voices[:, 0], voices[:, 1])
    assert torch.equal(tokens[:, 0], tokens[:, 1])
    measures = tokens[:, 0, -len(TOLD) :]
    logits = tokens[:, 0, 9 : -len(TOLD)].unflatten(1, (3, -1))
    wanted = torch.tensor([DEFAULT_LABELS.index(row.label) for row in talking])
    own = torch.tensor([0 if row.meta["corpus"] == "a" else 1 for row in talking])
    for head in (own, torch.full_like(own, 2)):
        found = logits[torch.arange(len(talking)), head].argmax(-1)
        assert (found == wanted).float().mean() > 0.8
    assert not logits[:, 1, DEFAULT_LABELS.index("happy")].any(), "corpus b has none"
    told = [
        (float(m[0]), row.cues.voice["pitch"])
        for m, row in zip(measures, talking, strict=True)
        if row.cues
    ]
    assert np.corrcoef(np.array(told).T)[0, 1] > 0.9
    assert not measures[:, 1:].any(), "nothing else was measured"
    silent = torch.zeros(1, 9)
    assert not heads.beside(torch.ones(1, 2, 9), silent, silent)[..., 9:].any()


class TestLoop:
    def test_a_stopped_run_ends_where_it_would_have(self, tmp_path):
        def run(steps, state, until=None):
            torch.manual_seed(3)
            probe = nn.Linear(4, 1)

            def losses(step):
                if step == until:
                    raise KeyboardInterrupt
                return {"loss": (probe(torch.randn(8, 4)) ** 2).mean()}

            run_steps(
                probe, losses, dict, name="x", steps=steps, learning_rate=0.1,
                log=tmp_path / "log", say=lambda text: None, validate_every=50, state=state,
            )  # fmt: skip
            return probe.weight

        whole = run(150, tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            run(150, tmp_path / "part", until=75)
        assert torch.equal(run(150, tmp_path / "part"), whole)


class TestTowerFiles:
    @pytest.mark.parametrize("name", ["vision", "audio"])
    def test_a_tower_is_what_load_model_takes(self, tmp_path, name):
        model, processor = from_preset("small", seed=1)
        write_tower(model, processor, name, tmp_path)
        other, _ = from_preset("small", seed=2)
        read_tower(other, name, tmp_path)
        inside = f"model.{name}_tower."
        for key, value in other.state_dict().items():
            same = torch.equal(value, model.state_dict()[key].half().float())
            assert same or not key.startswith(inside), key
        tiny, _ = from_preset("tiny")
        with pytest.raises(CheckpointError, match="model"):
            read_tower(tiny, name, tmp_path)


@pytest.fixture
def corpora(tmp_path):
    """People enough for a step: faces with votes, web faces, utterances of three speakers."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "corpora"
    (folder / "faces").mkdir(parents=True)
    (folder / "audio").mkdir()
    pixels = rng.integers(0, 256, (96, 192), np.uint8)
    tables = {"faces/ferplus.csv": [], "faces/webfaces.csv": [], "audio.csv": []}
    tables["faces/ferplus.csv"] = [
        (f"f{part}.png", tile, part, "happy", *(10 if k == tile else 0 for k in range(8)))
        for part in ("Training", "PublicTest", "PrivateTest")
        for tile in range(7)
    ]
    for number, part in enumerate(("Training", "PublicTest", "PrivateTest")):
        cv2.imwrite(str(folder / "faces" / f"f{part}.png"), np.roll(pixels, 7 * number + 1))
    cv2.imwrite(str(folder / "faces" / "web.png"), pixels)
    tables["faces/webfaces.csv"] = [("web.png", tile, "happiness", f"p{tile}") for tile in range(2)]
    talk = read_audio(Path(str(files("stream") / "assets" / "demo.mp4")), 0, 12.0).pcm
    for speaker, split in enumerate(("train", "val", "test")):
        for number, label in enumerate(("happy", "sad", "happy", "sad")):
            name = f"audio/{speaker}{number}.wav"
            begin = 12_000 * (4 * speaker + number)
            write_clip(folder / name, video=False, pcm=talk[begin : begin + 16_000])
            tables["audio.csv"].append((name, "x", label, f"s{speaker}", split))
    heads = {
        "faces/ferplus.csv": ("mosaic", "tile", "usage", "fer2013_label", *VOTED),
        "faces/webfaces.csv": ("mosaic", "tile", "emotion", "person"),
        "audio.csv": ("path", "corpus", "label", "speaker", "split"),
    }
    for name, rows in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([heads[name], *rows])
    return folder


def test_the_recipe_does_everything_once(corpora, tmp_path):
    out = tmp_path / "out"
    small.Recipe(corpora, out, PART).run(small.TOWERS, ())
    towers = {path: path.stat().st_mtime_ns for path in (out / "towers").rglob("*.safetensors")}
    assert {path.parent.name for path in towers} == {"faces", "vision", "audio"}
    model, _ = from_preset("small")
    started = {k: v.clone() for k, v in model.state_dict().items()}
    for name in small.TOWERS:
        scores = json.loads((out / "runs" / f"{name}.scores.json").read_text())
        assert {"validation", "test", "actors"} <= scores.keys()
        read_tower(model, name, out / "towers" / name)
        moved = [k for k, v in model.state_dict().items() if not torch.equal(v, started[k])]
        assert any(name in key for key in moved)
    assert torch.isfinite(model.model.audio(torch.rand(1, 128, 400))).all()

    recipe = small.Recipe(corpora, out, PART)
    recipe.run(small.TOWERS, ())
    assert towers == {path: path.stat().st_mtime_ns for path in towers}
    recipe.clips()
    recipe.shown()
    rows = {name: read_manifest(recipe.manifest(name)) for name in ("cold_start", "test_voices")}
    seen = {row.actor for row in rows["cold_start"] if row.actor}
    assert not seen & {row.actor for row in rows["test_voices"]}
    stills = [row for row in rows["cold_start"] if row.is_still]
    assert len(stills) == 7
    assert not any("PublicTest" in row.path.name or "Private" in row.path.name for row in stills)
    talk = [row for row in rows["cold_start"] if row.path.suffix == ".wav"]
    assert len(talk) == 4
    speech = read_manifest(recipe.manifest("speech"))
    assert all(row in speech for row in talk)
    cut, whole = speech[:4], speech[4:]
    assert [row.path for row in cut] == [row.path for row in whole]
    assert all(0.5 < row.end_s - row.start_s <= 1 for row in cut)
    assert all(row.end_s - row.start_s == pytest.approx(1) for row in whole)

    recipe.base(0)
    tuned, processor = load_model(recipe.model("base", 0))
    tiny, theirs = load_model("tiny")
    assert torch.equal(tuned.model.norm.weight, tiny.model.norm.weight)
    word = tiny.model.embed_tokens.weight[theirs.tokenizer("<answer>")["input_ids"]]
    [*ours] = processor.tokenizer("<answer>")["input_ids"]
    assert torch.allclose(tuned.model.embed_tokens.weight[ours].mean(0), word.mean(0), atol=0.02)
    numbers = 2 * len(DEFAULT_LABELS) + len(TOLD)
    assert tuned.config.voice_heads == numbers, "one corpus, and all of them; measures"

    recipe.fit_voices([0])
    heads = load_model(recipe.model("base", 0))[0].model.voice_heads
    told = heads.weight[: -len(TOLD)].reshape(2, len(DEFAULT_LABELS), -1).abs().sum(-1) > 0
    known = [label in ("happy", "sad") for label in DEFAULT_LABELS]
    assert told.tolist() == [known, known]


def test_pitch_and_voicing_are_read_off_what_a_tower_hears(corpora, tmp_path):
    model, processor = load_model("small")
    tower, extractor = model.model.audio_tower, processor.feature_extractor
    rows = [face(tmp_path, path=path) for path in sorted((corpora / "audio").glob("*.wav"))]
    voices = read_voices(rows, extractor, tmp_path, print)
    for weight in tower.audio_tower["prosody"].parameters():
        weight.data.zero_()
    assert fit_pitch(tower, voices, range(8)) < 2, "semitones"
    found, wanted = [], []
    for index in range(12):
        part = slice(*(voices.begins[index] + [0, 80]))
        mel = whisper_scale(torch.from_numpy(voices.mel[part].astype(np.float32).T)[None])
        with torch.inference_mode():
            found.append(tower.encode(mel)[0, :, 144:].numpy())
        wanted.append(voices.pitch[part][::2].astype(np.float32))
    heard, new = (np.concatenate(found[part]) for part in (slice(8), slice(8, None)))
    told, other = (np.concatenate(wanted[part]) for part in (slice(8), slice(8, None)))
    has = told[:, 1] > 0
    assert np.corrcoef(heard[has, 3], told[has, 0])[0, 1] > 0.7
    assert ((new[:, 6] > 0.5) == (other[:, 1] > 0)).mean() > 0.8, "sound that it was not fitted to"


def test_towers_that_are_kept_are_not_trained(corpora, tmp_path):
    home = Path(small.__file__).parents[2] / "benchmarks" / "results" / "small_towers"
    recipe = small.Recipe(corpora, tmp_path / "out")
    recipe.keep(home)
    recipe.run(small.TOWERS, ())
    model, _ = from_preset("small")
    for name, kept in small.KEPT.items():
        ours = recipe.out / "towers" / name / "model.safetensors"
        assert ours.read_bytes() == (home / kept / "model.safetensors").read_bytes()
        read_tower(model, name, ours.parent)
    assert not (recipe.out / "towers" / "faces").exists()
    with pytest.raises(ConfigError, match="has no small-siglip"):
        recipe.keep(tmp_path)


def test_neutral_talkers_are_those_of_grid(tmp_path):
    assert neutral_talkers(tmp_path / "av.csv") == []
    (tmp_path / "av.csv").write_text(
        "path,source,label\na.mp4,grid,neutral\nb.mp4,talkers,neutral\nc.mp4,grid,\n"
    )
    [row] = neutral_talkers(tmp_path / "av.csv")
    assert (row.path, row.label, row.split) == (tmp_path / "a.mp4", "neutral", "test")


def test_norms_that_come_back_change_nothing():
    torch.manual_seed(0)
    network = from_preset("small")[0].model.vision_tower
    pictures = torch.rand(8, 3, 64, 64)
    before = network(pictures)
    renew_norms(network, lambda: network(pictures))
    torch.testing.assert_close(network.train()(pictures), before, atol=1e-4, rtol=1e-3)


def test_without_corpora_it_says_so_in_one_line(tmp_path):
    command = [sys.executable, "-m", "training.recipe.small", "--corpora", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "make small CORPORA=DIR" in result.stderr
