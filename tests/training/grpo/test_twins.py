"""Groups that answer a clip and its twin, and the reward that compares them."""

import json

import pandas as pd
import pytest

from emostream.errors import ConfigError
from tests.training.grpo_rig import settings, trainer
from training.cli import main
from training.data.manifest import read_manifest
from training.grpo.rewards import intervention, reward_functions
from training.grpo.train import GrpoSettings, grpo, twin_rows
from training.synth.twins import clip_of, gone

SMILE, LOUD = ("face", "lip_corners_up", 1), ("voice", "loudness", 1)


def said(think: str) -> str:
    return f"<think>{think}</think>\n<answer>happy</answer>"


BESIDE = [said("We see a smile. The voice is loud."), said("The mouth corners are raised.")]


@pytest.mark.parametrize(
    ("think", "lost", "reward"),
    [
        (
            "We see a smile.",
            [SMILE],
            -1.0,
        ),  # in other words than the clip's, and in all of its answers
        ("The voice is loud.", [LOUD], -0.5),
        ("We see a smile. The voice is loud.", [SMILE, LOUD], -1.0),  # 1.5, but at most 1
        ("The voice is loud.", [SMILE], 0.0),
        ("The lip corners are not pulled up.", [SMILE], 0.0),
        ("The voice is soft.", [LOUD], 0.0),
        (
            "The brows are lowered.",
            [("face", "brows_lowered", 1)],
            0.0,
        ),  # false, but nothing stayed
        ("", [SMILE], 0.0),
    ],
)
def test_what_stays_though_its_cause_is_gone_costs(think, lost, reward):
    assert intervention(said(think), lost, BESIDE) == reward


def test_the_reward_compares_answers_of_one_pair_alone():
    [function] = reward_functions(["intervention"])
    completions = [*BESIDE, said("We see a smile."), said("No."), said("We see a smile.")]
    lost = json.dumps([SMILE])
    columns = {"pair": [7, 7, 7, 7, None], "gone": [None, None, lost, lost, None]}
    assert function(completions=completions, **columns) == [0.0, 0.0, -1.0, 0.0, None]
    columns["pair"] = [7, 7, 8, 8, None]
    assert function(completions=completions, **columns) == [0.0, 0.0, 0.0, 0.0, None]
    assert function(completions=completions) == [None] * 5
    assert function.__name__ == "intervention_reward"


def test_half_of_a_group_answers_the_twin_and_both_halves_share_a_mean(tmp_path):
    seen = []

    def which(*, completion_ids, clip, label, **_):
        seen.append((list(clip), list(label), [tuple(ids) for ids in completion_ids]))
        return [float(c >= 6) for c in clip]

    twins = {n: {"prompt": "twin", "clip": 6 + n, "label": "sad"} for n in range(5)}
    made = trainer(settings(tmp_path, max_steps=3), reward_funcs=[which], twins=twins)
    advantages = []
    compute = made._compute_loss

    def watched(model, inputs):
        advantages.append(inputs["advantages"].view(-1, 4))
        return compute(model, inputs)

    made._compute_loss = watched
    made.train()
    alone = 0
    for clips, labels, completions in seen:
        for at in range(0, len(clips), 4):
            first, second = clips[at : at + 2], clips[at + 2 : at + 4]
            assert len({*first}) == len({*second}) == 1
            own = first[0]
            assert second[0] == (6 + own if own < 5 else own)
            assert labels[at + 2] == ("sad" if own < 5 else "happy")
            alone += own == 5
            if own == 5:  # other numbers for its second half
                assert completions[at : at + 2] != completions[at + 2 : at + 4]
    assert alone
    # The twin's half earned 1, the clip's 0: one group, one mean.
    for group in (group for batch in advantages for group in batch):
        assert group[0] == group[1] == -group[2] == -group[3]
    with pytest.raises(ConfigError, match="num_generations is 3; half of a group"):
        trainer(settings(tmp_path, num_generations=3), twins=twins)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("twins")
    made = ["--out", str(out), "--clips", "4", "--seed", "3", "--twins", "face_cue,voice_cue,take"]
    assert main(["corpus", "synth", *made, "--workers", "1"]) == 0
    return out


def test_each_clip_gets_one_twin_of_which_something_is_gone(corpus):
    chosen = GrpoSettings(
        manifest=str(corpus / "manifest.jsonl"), twins=str(corpus / "twins.jsonl")
    )
    rows = read_manifest(chosen.manifest)
    twins = twin_rows(rows, chosen, 0)
    paths = [clip_of(twin) for twin in twins]
    assert len(set(paths)) == len(paths) > 1
    by_path = {row.path: row for row in rows}
    assert all(gone(by_path[clip_of(twin)].cues, twin.cues) for twin in twins)
    assert {t.path for seed in range(6) for t in twin_rows(rows, chosen, seed)} > {
        t.path for t in twins
    }


def test_the_command_trains_on_pairs(corpus, tmp_path):
    flags = (
        *("--model", "tiny", "--manifest", str(corpus / "manifest.jsonl")),
        *("--twins", str(corpus / "twins.jsonl"), "--rewards", "accuracy", "grounding"),
        *("intervention", "--reward_weights", "1", "1", "1", "--use_cpu", "--max_steps", "1"),
        *("--per_device_train_batch_size", "16", "--num_generations", "4"),
        *("--max_completion_length", "64"),
    )
    assert grpo(None, tmp_path / "out", flags) is not None
    [log] = (tmp_path / "out" / "completions").iterdir()
    sampled = pd.read_parquet(log)
    assert len(sampled) == 16
    twins = sampled["prompt"].str.contains("cue")
    assert 2 <= twins.sum() <= 8
    assert (sampled["intervention_reward"][~twins].fillna(0.0) == 0.0).all()
    assert sampled["intervention_reward"][twins].between(-1.0, 0.0).all()


@pytest.mark.parametrize(
    ("twins", "said"),
    [(None, "name their manifest, twins:"), ("manifest.jsonl", "000000.mp4 is no twin")],
)
def test_without_twins_there_is_nothing_to_compare(corpus, tmp_path, twins, said):
    named = () if twins is None else ("--twins", str(corpus / twins))
    flags = ("--manifest", str(corpus / "manifest.jsonl"), "--rewards", "intervention", *named)
    more = ("--reward_weights", "1", "--per_device_train_batch_size", "16", "--use_cpu")
    with pytest.raises(ConfigError, match=said):
        grpo(None, tmp_path / "out", [*flags, *more, "--num_generations", "4"])
