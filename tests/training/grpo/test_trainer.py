"""GRPO against an oracle, by hand, over an interruption, and where numbers are none."""

import json
import math

import pytest
import torch
from transformers import TrainerCallback

from emostream import load_model
from emostream.errors import ConfigError, TrainingError
from tests.training.grpo_rig import even_reward, plain_logps, policy, settings, trainer
from training.grpo.trainer import EmostreamGRPOTrainer
from training.tuning.lora import add_lora, has_lora, merged
from training.tuning.watch import StopOnNonFinite


class Recording(EmostreamGRPOTrainer):
    """Keeps each optimizer step: the weights before it, its batches, losses and gradients."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = []
        self.add_callback(_Gradients(self.steps))

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        self.steps[-1]["parts"].append((inputs, float(loss.detach())))
        return loss


class _Gradients(TrainerCallback):
    def __init__(self, steps):
        self.steps = steps

    def on_step_begin(self, args, state, control, model=None, **_):
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        self.steps.append({"weights": weights, "parts": []})

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.steps[-1]["gradients"] = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }


def completions(inputs):
    """Clip, ids and advantage of each completion of a batch; ids of masked ones are None."""
    rows = zip(
        inputs["clips"].tolist(),
        inputs["completion_ids"],
        inputs["completion_mask"],
        inputs["advantages"],
        strict=True,
    )
    return [
        (clip, ids[mask.bool()].tolist() if mask.any() else None, advantage)
        for clip, ids, mask, advantage in rows
    ]


def oracle_loss(step, model, reference, old_logps, prompts, args):
    """The objective of one optimizer step from the formulas, every sequence by itself."""
    everything = [row for inputs, _ in step["parts"] for row in completions(inputs)]
    tokens = sum(len(ids) for _, ids, _ in everything if ids)
    loss = torch.zeros(())
    for number, (clip, ids, advantage) in enumerate(everything):
        if not ids:
            continue
        logps = plain_logps(model, prompts, clip, ids, args.temperature)
        ratio = (logps - old_logps[number]).exp()
        clipped = ratio.clamp(1 - args.epsilon, 1 + args.epsilon_high)
        value = -torch.minimum(ratio * advantage, clipped * advantage)
        if args.beta:
            gap = reference[number] - logps
            value = value + args.beta * (gap.exp() - gap - 1)
        tokenwise = args.loss_type == "dapo"
        loss = loss + (value.sum() / tokens if tokenwise else value.mean() / len(everything))
    return loss


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_truncated_completions": True, "temperature": 0.9},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
        {
            "loss_type": "grpo",
            "beta": 0.04,
            "use_bias_correction_kl": False,
            "epsilon_high": 0.2,
        },
    ],
    ids=["dapo", "accumulated", "paper"],
)
def test_losses_and_gradients_are_the_oracles(tmp_path, changes):
    args = settings(tmp_path, num_iterations=2, max_steps=2, learning_rate=3e-3, **changes)
    run = trainer(args, kind=Recording)
    prompts = run._prompts
    run.train()
    first, second = run.steps
    initial, _ = policy()
    initial.train()

    # Both steps reuse the first's completions: their old log-probabilities are the initial policy's.
    drawn = [row for inputs, _ in first["parts"] for row in completions(inputs)]
    with torch.no_grad():
        old = [
            plain_logps(initial, prompts, clip, ids, args.temperature) if ids else None
            for clip, ids, _ in drawn
        ]
    clips = 0
    for step in (first, second):
        model, _ = policy()
        model.train()
        model.load_state_dict(step["weights"], strict=False)
        loss = oracle_loss(step, model, old, old, prompts, args)
        loss.backward()
        mine = sum(value for _, value in step["parts"])
        assert mine == pytest.approx(float(loss.detach()), rel=2e-6, abs=1e-7)
        largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
        assert largest > 1e-3
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gap = float((step["gradients"][name] - parameter.grad).abs().max())
                assert gap < 2e-5 * largest, name
        with torch.no_grad():
            for number, (clip, ids, _) in enumerate(drawn):
                if ids:
                    now = plain_logps(model, prompts, clip, ids, args.temperature)
                    clips += int(((now - old[number]).exp() > 1 + args.epsilon_high).sum())
    assert clips  # or the clipped objective was not tried


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        # mean 1/4; standard deviation of (1, 0, 0, 0) with n - 1 is 1/2
        ("group", [1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0]),
        ("none", [0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0]),
    ],
)
def test_advantages_by_hand(tmp_path, scale, expected):
    def first_only(*, completion_ids, **_):
        return [1.0, 0.0, 0.0, 0.0] + [0.5] * 4

    args = settings(
        tmp_path, per_device_train_batch_size=8, scale_rewards=scale, max_steps=1, beta=0.0
    )
    run = trainer(args, kind=Recording, reward_funcs=[first_only])
    run.train()
    advantages = run.steps[0]["parts"][0][0]["advantages"]
    assert advantages.tolist() == pytest.approx(expected, abs=5e-4)


def test_rewards_are_weighted(tmp_path):
    def one(*, completion_ids, **_):
        return [1.0, 0.0] * 2

    def two(*, completion_ids, **_):
        return [0.0, 1.0, None, None]

    args = settings(
        tmp_path,
        per_device_train_batch_size=4,
        max_steps=1,
        scale_rewards="none",
        reward_weights=[1.0, 0.5],
    )
    run = trainer(args, kind=Recording, reward_funcs=[one, two])
    run.train()
    # sums 1, 0.5, 1, 0: a reward that does not apply adds nothing
    advantages = run.steps[0]["parts"][0][0]["advantages"]
    assert advantages.tolist() == pytest.approx([0.375, -0.125, 0.375, -0.625])


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path):
    def run(out, steps, resume=None):
        args = settings(out, max_steps=steps, save_strategy="steps", save_steps=2)
        job = trainer(args)
        job.train(resume_from_checkpoint=resume)
        return {n: p.detach().clone() for n, p in job.model.named_parameters()}

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "halves", 2)
    halves = run(tmp_path / "halves", 4, str(tmp_path / "halves" / "checkpoint-2"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    fresh = dict(policy()[0].named_parameters())
    assert not torch.equal(whole["model.norm.weight"], fresh["model.norm.weight"])


def test_a_checkpoint_is_a_model(tmp_path):
    run = trainer(settings(tmp_path, max_steps=1, save_strategy="steps", save_steps=1))
    run.train()
    loaded, _ = load_model(tmp_path / "checkpoint-1")
    trained = run.model.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in loaded.state_dict().items())


def test_towers_do_not_change(tmp_path):
    before = policy()[0].state_dict()
    run = trainer(settings(tmp_path, max_steps=1))
    run.train()
    moved = {n for n, t in run.model.state_dict().items() if not torch.equal(t, before[n])}
    frozen = ("model.vision_tower.", "model.audio_tower.", "model.bert_model.")
    assert not [name for name in moved if name.startswith(frozen)]
    for part in ("model.layers.", "model.mm_projector.", "model.audio_projector."):
        assert any(name.startswith(part) for name in moved), part


def test_checkpointed_activations_change_nothing(tmp_path):
    runs = []
    for checkpointed in (False, True):
        args = settings(tmp_path, max_steps=1, gradient_checkpointing=checkpointed)
        run = trainer(args, kind=Recording)
        run.train()
        runs.append(run.steps[0])
    assert runs[0]["parts"][0][1] == pytest.approx(runs[1]["parts"][0][1], abs=1e-6)
    for name, gradient in runs[0]["gradients"].items():
        assert torch.allclose(gradient, runs[1]["gradients"][name], atol=1e-6), name


def test_adapters_train_resume_and_merge(tmp_path):
    def run(out, steps, resume=None):
        model, _ = policy()
        torch.manual_seed(0)
        add_lora(model, rank=4, alpha=8)
        args = settings(out, max_steps=steps, save_strategy="steps", save_steps=1)
        job = trainer(args, model=model)
        job.train(resume_from_checkpoint=resume)
        return job.model

    model = run(tmp_path / "whole", 2)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in n or "projector" in n or "bert_gate" in n for n in trained)
    assert not any("lora" in name and "tower" in name for name in trained)
    run(tmp_path / "halves", 1)
    halves = run(tmp_path / "halves", 2, str(tmp_path / "halves" / "checkpoint-1"))
    for (name, one), other in zip(model.named_parameters(), halves.parameters(), strict=True):
        assert torch.equal(one, other), name

    loaded, _ = load_model(tmp_path / "whole" / "checkpoint-2")
    assert not has_lora(loaded)
    assert merged(loaded) is loaded
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, model.eval()(ids).logits, atol=1e-4)
        assert not torch.allclose(loaded(ids).logits, policy()[0](ids).logits, atol=1e-2)


def test_a_reward_that_is_no_number_stops_the_run(tmp_path):
    def broken(*, completion_ids, **_):
        return [math.nan] * len(completion_ids)

    run = trainer(settings(tmp_path), reward_funcs=[broken])
    with pytest.raises(TrainingError, match=r"the broken is nan at step 1"):
        run.train()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    model, _ = policy()
    with torch.no_grad():
        model.model.norm.weight[0] = math.inf
    run = trainer(settings(tmp_path), model=model)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1"):
        run.train()


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_change(tmp_path):
    model, _ = policy()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    args = settings(tmp_path, max_grad_norm=1.0)
    run = trainer(args, model=model, callbacks=[StopOnNonFinite()])
    with pytest.raises(TrainingError, match=r"the gradient of .* is (nan|inf) at step 1"):
        run.train()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_batch_of_truncated_completions_is_a_step_that_changes_nothing(tmp_path):
    model, _ = policy()
    model.generation_config.eos_token_id = model.config.eos_token_id  # which it hardly ever writes
    args = settings(tmp_path, max_steps=1, mask_truncated_completions=True, max_completion_length=1)
    run = trainer(args, model=model, kind=Recording, reward_funcs=[even_reward])
    run.train()
    inputs, loss = run.steps[0]["parts"][0]
    assert not inputs["completion_mask"].any()
    assert loss == 0
    assert not any(gradient.any() for gradient in run.steps[0]["gradients"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_p": 0.9}, "top_p is 0.9"),
        ({"per_device_train_batch_size": 6, "generation_batch_size": 12}, None),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, None),
    ],
)
def test_settings_that_cannot_be_served_are_refused(tmp_path, changes, message):
    if message is None:
        trainer(settings(tmp_path, **changes))
        return
    with pytest.raises(ConfigError, match=message):
        trainer(settings(tmp_path, **changes))


def test_the_log_holds_what_was_sampled_and_earned(tmp_path):
    import pandas

    args = settings(tmp_path, max_steps=1, log_completions=True, num_completions_to_print=0)
    run = trainer(args)
    run.train()
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert len(table) == 12
    assert set(table["prompt"]) <= {f"{n}.mp4" for n in range(6)}
    assert {"completion", "even_reward", "short_reward", "advantage"} <= set(table.columns)
    logged = json.dumps(run.state.log_history)
    assert "rewards/even_reward/mean" in logged
