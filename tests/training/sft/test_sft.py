"""Supervised fine-tuning of a small model: its loss by hand, its batches, resuming, and the command on real clips."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emostream import load_model
from emostream.errors import ConfigError, TrainingError
from emostream.inference.scoring import candidate_tree
from tests.training.clips import write_clip
from tests.training.sft_rig import LABELS, rig, rows
from training.cli import main
from training.data.manifest import Row, write_manifest
from training.sft.train import SftSettings, _validation_rows
from training.sft.trainer import _summed_loss
from training.tuning.lora import has_lora


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def by_hand(trainer, indices, epoch):
    """Summed loss and number of tokens, one answer at a time behind a prompt of its own."""
    batches, model, processor = trainer.data_collator, trainer.model, trainer.processor
    total, count = 0.0, 0
    for index in indices:
        rng = np.random.default_rng((trainer.args.seed, epoch + 1, index))
        row, clip = batches.rows[index], batches._prompts.clip(index)
        clip = batches._hide(clip, row, rng)
        given = {"video": "vision_features" in clip, "audio": "audio_features" in clip}
        for text in batches._writer.write(row, rng, **given):
            prompt = batches._prompts.ids_of(clip)
            answer = processor.tokenizer.encode(text, add_special_tokens=False)
            answer.append(processor.tokenizer.eos_token_id)
            ids = torch.tensor([prompt + answer])
            logits = model(input_ids=ids, **batches._prompts.media_of([clip], len(prompt))).logits
            predicted = logits[0, len(prompt) - 1 : -1]
            total += float(F.cross_entropy(predicted, torch.tensor(answer), reduction="sum"))
            count += len(answer)
    return total, count


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_loss_is_that_of_every_answer_by_itself(tmp_path, epoch):
    changes = {"wordings": 2, "label_first": 0.5, "drop_video": 0.3, "drop_audio": 0.3}
    trainer = rig(tmp_path, changes=changes)
    trainer.data_collator.epoch = epoch
    with torch.no_grad():
        batch = trainer.data_collator(range(12))
        found, tokens = _summed_loss(trainer.model, batch)
        expected, count = by_hand(trainer, range(12), epoch)
    assert int(tokens) == count
    assert float(found) == pytest.approx(expected, rel=1e-5)


def texts(trainer, batch):
    """The answers of each row, in order."""
    out = []
    for targets in batch["shift_labels"]:
        text = trainer.processor.tokenizer.decode(targets[targets >= 0])
        out.append(text.removesuffix("<|im_end|>").split("<|im_end|>"))
    return out


def test_epochs_word_anew_and_validation_does_not(tmp_path):
    batches = (trainer := rig(tmp_path)).data_collator
    seen = []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        seen.append(texts(trainer, batches(range(12))))
    assert seen[0] == seen[2] != seen[1]
    fixed = texts(trainer, batches.validation(range(12)))
    batches.epoch = 7
    assert texts(trainer, batches.validation(range(12))) == fixed
    assert fixed[4:8] != fixed[:4]
    for row, answers in zip(rows(12), fixed, strict=True):
        assert all(f"<answer>{row.label}</answer>" in answer for answer in answers)


def test_hidden_modalities_have_no_tokens_and_are_not_spoken_of(tmp_path):
    trainer = rig(tmp_path, changes={"drop_video": 0.0, "drop_audio": 1.0})
    batch = trainer.data_collator([0, 3, 6, 9])  # the clips that have both
    assert (batch["audio_start"] == -1).all()
    assert "audio_features" not in batch
    for answers in texts(trainer, batch):
        assert not any(word in answers[0] for word in ("voice", "speech", "pitch", "pace"))


def test_towers_stay_and_the_rest_learns_at_its_rates(tmp_path):
    trainer = rig(tmp_path, changes={"media_learning_rate": 3e-3}, warmup_steps=0)
    before = weights(trainer.model)
    trainer.train()
    changed = {n for n, t in trainer.model.state_dict().items() if not torch.equal(t, before[n])}
    frozen = ("vision_tower", "audio_tower", "bert_model", "bert_gate")
    assert changed
    assert not [name for name in changed if any(part in name for part in frozen)]
    assert any("mm_projector" in name for name in changed)
    assert any("layers.1.mlp" in name for name in changed)
    rates = {(g["initial_lr"], g["weight_decay"]) for g in trainer.optimizer.param_groups}
    assert {rate for rate, _ in rates} == {1e-3, 3e-3}


def test_it_learns_labels_and_keeps_the_best(tmp_path):
    trainer = rig(
        tmp_path,
        clips=24,
        held_out=12,
        changes={"answers": "label", "keep_best": True, "max_new_tokens": 32},
        max_steps=40,
        learning_rate=3e-3,
        eval_strategy="steps",
        eval_steps=20,
        metric_for_best_model="label_accuracy",
        greater_is_better=True,
    )
    trainer.train()
    history = [log for log in trainer.state.log_history if "eval_loss" in log]
    assert [log["step"] for log in history] == [20, 40]
    assert history[-1]["eval_label_accuracy"] >= 0.9
    assert history[-1]["eval_answer_accuracy"] == history[-1]["eval_label_accuracy"]
    assert history[-1]["eval_format"] == 1.0
    best, _ = load_model(tmp_path / "best")
    assert best.config.use_cache == trainer.model.config.use_cache


def test_a_resumed_run_ends_where_a_whole_one_does(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5}  # an epoch has two steps
    whole = rig(tmp_path / "whole", **settings)
    whole.train()
    rig(tmp_path / "cut", **settings).train()
    again = rig(tmp_path / "cut", **settings)
    for part in (again.model.model.layers, again.model.model.mm_projector):  # loaded, all of it
        torch.nn.init.zeros_(next(part.parameters()))
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, msg=name)
    assert again.state.log_history[-2]["loss"] == whole.state.log_history[-2]["loss"]


def test_a_finished_run_stays_as_it_is(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 3}  # amid an epoch
    done = rig(tmp_path, **settings)
    done.train()
    again = rig(tmp_path, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.state.global_step == 3
    for name, tensor in done.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_a_run_shorter_than_the_logging_interval_shows_its_end(tmp_path, capsys):
    rig(tmp_path, logging_steps=10, max_steps=3).train()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["3/3"]


def test_numbers_that_are_none_end_training(tmp_path):
    trainer = rig(tmp_path)
    torch.nn.init.constant_(trainer.model.model.norm.weight, float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        trainer.train()


def test_accumulated_batches_are_one_batch(tmp_path):
    settings = {"max_steps": 2, "max_grad_norm": 0.0, "optim": "sgd"}
    whole = rig(tmp_path, per_device_train_batch_size=12, **settings)
    parts = rig(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=3, **settings)
    whole.train()
    parts.train()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_clips_of_a_step_are_padded_with_those_of_their_length(tmp_path):
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}
    trainer = rig(tmp_path, clips=27, **parts)
    lengths = trainer.data_collator.prompt_lengths()
    assert len(set(lengths)) == 3
    drawn = list(trainer._get_train_sampler())
    assert sorted(itertools.chain.from_iterable(drawn)) == list(range(27))
    for step in (drawn[:3], drawn[3:6], drawn[6:]):
        told = sorted([lengths[clip] for clip in part] for part in step)
        assert all(max(short) <= min(long) for short, long in itertools.pairwise(told))


def test_adapters_are_merged_into_what_is_saved(tmp_path):
    trainer = rig(
        tmp_path, changes={"lora_rank": 4}, save_strategy="steps", save_steps=2, max_steps=2
    )
    assert has_lora(trainer.model)
    trainer.train()
    saved, _ = load_model(tmp_path / "checkpoint-2")
    batch = trainer.data_collator(range(4))
    with torch.no_grad():
        trainer.model.eval()
        ours, theirs = (_summed_loss(m, batch)[0] for m in (trainer.model, saved))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("style", ["reasoned", "bare"])
def test_label_answers_are_the_candidates_that_are_scored(tmp_path, style):
    trainer = rig(tmp_path, changes={"answers": "label", "answer_style": style})
    tokenizer = trainer.processor.tokenizer
    tree = candidate_tree(tokenizer, LABELS, style=style)
    batch = trainer.data_collator.validation([0])
    targets = batch["shift_labels"][0]
    trained = targets[targets >= 0].tolist()
    walked = []
    for index in range(len(tree.token_ids_K)):
        above = tree.ancestors_KK[index].nonzero()[:, 0]
        walked.append(tree.token_ids_K[above].tolist())
    paths = max((path for path in walked if trained[: len(path)] == path), key=len)
    # A candidate's last token is only predicted, and the turn ends after it.
    assert trained[: len(paths)] == paths
    assert len(trained) - len(paths) == (1 if style == "bare" else 2)


def test_bare_answers_hold_no_reasons(tmp_path):
    with pytest.raises(ConfigError, match="bare answers hold no reasons"):
        rig(tmp_path, changes={"answer_style": "bare"})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    made = []
    for n, row in enumerate(rows(12)[::3]):
        path = write_clip(folder / f"{n}.mp4", brightness=50 * n, audio=n != 1)
        made.append(Row(path=path, label=row.label, split="train", cues=row.cues))
    (folder / "broken.mp4").write_bytes(b"")
    broken = Row(path=folder / "broken.mp4", label="sad", split="train")
    write_manifest(folder / "manifest.jsonl", [*made, broken])
    return folder / "manifest.jsonl"


FLAGS = "--model preset:tiny --max_steps 2 --logging_steps 1 --max_new_tokens 4 --save_steps 2"


def test_the_command_trains_on_clips_and_continues(corpus, tmp_path, capsys, caplog):
    config = tmp_path / "c.yaml"
    config.write_text(f"manifest: {corpus}\nvalidation: {corpus}\nper_device_train_batch_size: 2\n")
    out = tmp_path / "out"
    call = ["sft", "--config", str(config), "--out", str(out), *FLAGS.split()]
    assert main([*call, "--eval_steps", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.strip().endswith("model: the trained checkpoint")
    assert "step 2/2  validation loss" in said.err
    assert "1 of 5 clips are left out" in caplog.text
    model, processor = load_model(out / "model")
    assert model.config.use_cache
    assert processor.tokenizer.eos_token == "<|im_end|>"
    assert list((out / "runs").glob("events*"))
    copied = copy.deepcopy(weights(model))
    assert main([*call, "--max_steps", "4"]) == 0
    state = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert "step 4/4" in capsys.readouterr().err
    later, _ = load_model(out / "model")
    assert any(not torch.equal(t, copied[n]) for n, t in later.state_dict().items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--answers none", "answers is 'none'; wanted reasoned or label"),
        ("--split dev", "no rows to train on in split dev; it has train"),
        ("--drop_video 0.8 --drop_audio 0.8", "together are more than 1"),
        ("--model preset:huge", "there is no preset 'huge'"),
        ("--unheard 1", "unheard"),
    ],
)
def test_a_users_mistake_is_one_line(corpus, tmp_path, capsys, flags, message):
    call = ["sft", "--out", str(tmp_path), "--manifest", str(corpus), *FLAGS.split()]
    assert main([*call, *flags.split()]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("emostream-train: ")
    assert message in said


def test_validation_clips_come_from_all_over_a_sorted_corpus(tmp_path):
    paths = [tmp_path / f"{number:02}.mp4" for number in range(12)]
    write_manifest(tmp_path / "v.jsonl", [Row(path=p, label="happy", split="test") for p in paths])
    chosen = {}
    for limit in (1, 8, 100):
        settings = SftSettings(
            manifest="", validation=str(tmp_path / "v.jsonl"), validation_limit=limit
        )
        chosen[limit] = [paths.index(row.path) for row in _validation_rows(settings)]
    assert chosen == {1: [0], 8: [0, 1, 3, 4, 6, 7, 9, 10], 100: list(range(12))}
