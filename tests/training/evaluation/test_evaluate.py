"""The whole of `eval` on real clips, with the small model and random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest

from emostream.errors import ConfigError
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.media import load_clip
from emostream.model.presets import from_preset
from tests.media_factory import Video, write_media
from tests.training.clips import write_clip
from training.data.cues import Cues
from training.data.features import cache_features
from training.data.manifest import Row
from training.evaluation.evaluate import evaluate
from training.evaluation.predict import EvalSettings, _partners

LABELS = ("happy", "sad", "angry")
SETTINGS = EvalSettings(labels=LABELS, batch_size=2, max_new_tokens=6)


@pytest.fixture(scope="module")
def tiny():
    return from_preset("tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    made = []
    for i, label in enumerate(("happy", "sad", "angry", "happy", "sad")):
        noise = 0.1 * (i + 1) * rng.standard_normal(16_000).clip(-1, 1)
        path = write_clip(folder / f"{i}.mp4", pcm=noise, brightness=40 * i)
        made.append(Row(path=path, label=label, split="test", cues=Cues({"AU12": 0.5}, {})))
    return made


@pytest.fixture(scope="module")
def whole(tiny, rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    seen = []
    result = evaluate(
        *tiny, rows, out, SETTINGS, model_name="tiny", on_progress=lambda *at: seen.append(at)
    )
    return result, out, seen


def predictions(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_it_writes_everything_that_eval_json_promises(whole):
    result, out, seen = whole
    assert json.loads((out / "eval.json").read_text()) == json.loads(json.dumps(result))
    promised = (
        *("war", "uar", "recall", "confusion", "format_rate", "claim_support_rate"),
        *("hallucinated_claim_rate", "cue_recall", "ece", "agreement", "ablation"),
    )
    assert set(promised) <= set(result)
    assert set(result["ablation"]) == {"clips", "both", "video", "audio", "shuffled_audio"}
    assert result["clips"] == result["ablation"]["clips"] == 5
    assert result["provenance"]["dtype"] == "float32"
    clips = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    assert [clip["index"] for clip in clips] == list(range(5))
    for name in ("report.md", "confusion.png", "recall.png", "reliability.png"):
        assert (out / name).stat().st_size > 0
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_conditions_differ_and_are_probabilities(whole):
    for prediction in predictions(whole[1]):
        assert set(prediction["scores"]) == {"both", "video", "audio", "shuffled_audio"}
        values = [tuple(s[label] for label in LABELS) for s in prediction["scores"].values()]
        assert all(sum(v) == pytest.approx(1.0) for v in values)
        assert len(set(values)) == 4


def test_scores_do_not_depend_on_the_batch(tiny, rows, whole, tmp_path):
    settings = EvalSettings(labels=LABELS, batch_size=5, max_new_tokens=6)
    evaluate(*tiny, rows, tmp_path, settings)
    for ours, theirs in zip(predictions(whole[1]), predictions(tmp_path), strict=True):
        assert ours["text"] == theirs["text"]
        for condition, scores in ours["scores"].items():
            assert scores == pytest.approx(theirs["scores"][condition], abs=1e-4)


def test_scores_and_answers_are_those_of_the_live_path(tiny, rows, whole):
    live = Recognizer(*tiny, labels=LABELS, max_new_tokens=6)
    for row, found in zip(rows, predictions(whole[1]), strict=True):
        clip = load_clip(row.path, tiny[0].config.num_frames, row.start_s, row.end_s)
        keys = tuple(range(len(clip.frames)))
        shown = {
            "both": {"keys": keys, "frames": tuple(clip.frames), "audio": clip.audio},
            "video": {"keys": keys, "frames": tuple(clip.frames)},
            "audio": {"audio": clip.audio},
        }
        for condition, media in shown.items():
            [result] = live.recognize([MediaWindow(source=f"{row.path} {condition}", **media)])
            assert found["scores"][condition] == pytest.approx(result.scores, abs=1e-4)
            if condition == "both":
                live.start_reasoning(result)
                while steps := live.reason():
                    text = steps[0].text
        assert found["text"] == text


def test_cached_features_give_the_same_results(tiny, rows, whole, tmp_path):
    with_gaps = [*rows, Row(path=tmp_path / "gone.mp4", label="sad", split="test")]
    for dtype, error in (("float32", 1e-4), ("float16", 5e-3)):
        store = cache_features(*tiny, with_gaps, tmp_path / "features", dtype=dtype)
        out = tmp_path / dtype
        result = evaluate(*tiny, with_gaps, out, replace(SETTINGS, batch_size=64), store=store)
        assert result["skipped"] == {"unreadable": 1}
        assert result["provenance"]["features"] == "cached"
        for ours, theirs in zip(predictions(out), predictions(whole[1]), strict=False):
            for condition in ("both", "video", "audio"):
                expected = theirs["scores"][condition]
                assert ours["scores"][condition] == pytest.approx(expected, abs=error)
    # Whose sound a clip is given is drawn among all rows, so `shuffled_audio` is compared on the same ones.
    store = cache_features(*tiny, rows, tmp_path / "features", dtype="float32")
    evaluate(*tiny, rows, tmp_path / "same", SETTINGS, store=store)
    for ours, theirs in zip(predictions(tmp_path / "same"), predictions(whole[1]), strict=True):
        assert ours["text"] == theirs["text"]
        expected = theirs["scores"]["shuffled_audio"]
        assert ours["scores"]["shuffled_audio"] == pytest.approx(expected, abs=1e-4)


def test_the_video_condition_is_the_clip_without_sound(tiny, rows, whole, tmp_path):
    mute = [
        Row(path=write_clip(tmp_path / f"{i}.mp4", audio=False, brightness=40 * i), label="sad", split="test")
        for i in range(2)
    ]  # fmt: skip
    result = evaluate(*tiny, mute, tmp_path / "out", SETTINGS)
    assert result["ablation"]["clips"] == 2
    assert set(result["ablation"]) == {"clips", "both", "video"}
    for ours, theirs in zip(predictions(tmp_path / "out"), predictions(whole[1]), strict=False):
        assert ours["scores"]["video"] == pytest.approx(ours["scores"]["both"], abs=1e-5)
        assert ours["scores"]["video"] == pytest.approx(theirs["scores"]["video"], abs=1e-4)


def test_a_single_clip_is_not_given_its_own_sound_as_anothers(tiny, rows, tmp_path):
    settings = replace(SETTINGS, reasoning=False)
    result = evaluate(*tiny, rows[:1], tmp_path, settings)
    [prediction] = predictions(tmp_path)
    assert set(prediction["scores"]) == {"both", "video", "audio"}
    assert set(result["ablation"]) == {"clips", "both", "video", "audio"}


def test_an_interrupted_run_continues_where_it_was(tiny, rows, whole, tmp_path):
    class Stop(Exception):
        pass

    def interrupt(done, total):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        evaluate(*tiny, rows, tmp_path, SETTINGS, on_progress=interrupt)
    file = tmp_path / "predictions.jsonl"
    assert len(predictions(tmp_path)) == 2
    with file.open("a") as half:
        half.write('{"index": 2, "path": "cut sho')
    seen = []
    result = evaluate(*tiny, rows, tmp_path, SETTINGS, on_progress=lambda *at: seen.append(at))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert result["provenance"]["clips_resumed"] == 2
    assert result["war"] == whole[0]["war"]
    # Finished: nothing is computed again, whatever the batch size.
    again = evaluate(*tiny, rows, tmp_path, EvalSettings(labels=LABELS, max_new_tokens=6))
    assert again["provenance"]["clips_resumed"] == 5


def test_another_evaluation_does_not_mix_in(tiny, rows, whole, tmp_path):
    with pytest.raises(ConfigError, match=r"holds another evaluation \(other clips\); choose"):
        evaluate(*tiny, rows[:4], whole[1], SETTINGS)
    other = from_preset("tiny", seed=1)
    with pytest.raises(ConfigError, match="other weights"):
        evaluate(*other, rows, whole[1], SETTINGS)


def test_unusable_rows_are_skipped_and_counted(tiny, rows, tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 100)
    more = [
        rows[0],
        Row(path=tmp_path / "gone.mp4", label="sad", split="test"),
        Row(path=tmp_path / "junk.mp4", label="sad", split="test"),
        Row(path=rows[1].path, label=None, answer="wistful", split="test"),
    ]
    settings = EvalSettings(labels=LABELS, reasoning=False, conditions=("both",))
    result = evaluate(*tiny, more, tmp_path / "out", settings)
    assert result["clips"] == 1
    assert result["skipped"] == {"unreadable": 2, "no label": 1}
    assert {name_of(s["path"]) for s in result["skipped_clips"]} == {
        "gone.mp4",
        "junk.mp4",
        "1.mp4",
    }
    assert result["answers"] == "label_first"
    assert result["ablation"] == {}


def name_of(path):
    return path.rsplit("/", 1)[-1]


def test_what_cannot_be_evaluated_is_an_error(tiny, rows, tmp_path):
    with pytest.raises(ConfigError, match="no rows to evaluate"):
        evaluate(*tiny, [], tmp_path)
    with pytest.raises(ConfigError, match=r"2.mp4 is labelled 'angry'; wanted one of happy, sad;"):
        evaluate(*tiny, rows, tmp_path, EvalSettings(labels=("happy", "sad")))
    with pytest.raises(ConfigError, match="unknown condition 'blind'"):
        EvalSettings(conditions=("blind",))
    with pytest.raises(ConfigError, match="batch_size is 0"):
        EvalSettings(batch_size=0)


def test_nobody_keeps_their_own_sound(rows):
    partners = _partners(rows, seed=3)
    assert sorted(partners) == list(range(5))
    assert all(i != partner for i, partner in enumerate(partners))


@pytest.mark.parametrize("rest", [b"\0" * 40 + b"\n", b'{"index": 1}\n', b"{}\n"])
def test_predictions_that_are_damaged_are_made_anew(tiny, rows, tmp_path, caplog, rest):
    settings = replace(SETTINGS, reasoning=False, conditions=("both",))
    evaluate(*tiny, rows[:2], tmp_path, settings)
    file = tmp_path / "predictions.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + rest + second)
    result = evaluate(*tiny, rows[:2], tmp_path, settings)
    assert result["provenance"]["clips_resumed"] == 1
    assert "is damaged behind prediction 1; the rest is made anew" in caplog.text
    assert len(predictions(tmp_path)) == 2


def test_a_raw_file_whose_pictures_change_their_size_is_evaluated(tiny, rows, tmp_path):
    parts = [
        write_media(tmp_path / f"{size[0]}.h264", Video(duration_s=1, size=size), None).read_bytes()
        for size in ((64, 48), (128, 96))
    ]
    (tmp_path / "raw.h264").write_bytes(b"".join(parts))
    raw = Row(path=tmp_path / "raw.h264", label="sad", split="test")
    settings = replace(SETTINGS, reasoning=False, conditions=("both",))
    result = evaluate(*tiny, [rows[0], raw], tmp_path / "out", settings)
    assert (result["clips"], result["skipped"]) == (2, {})
