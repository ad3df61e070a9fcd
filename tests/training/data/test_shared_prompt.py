"""Groups behind one prompt: the layout by hand, and the model's numbers against whole sequences."""

import torch

from tests.training.grpo_rig import MadeUpFeatures, plain_logps, policy, rows
from training.data.prompts import ClipPrompts
from training.data.shared_prompt import IGNORED, pack


def test_layout_by_hand():
    packed = pack(
        prompt_ids_NP=torch.tensor([[0, 11, 12], [21, 22, 23]]),
        prompt_mask_NP=torch.tensor([[0, 1, 1], [1, 1, 1]]),
        completion_ids_BC=torch.tensor([[1, 2], [3, 0], [4, 5]]),
        completion_mask_BC=torch.tensor([[1, 1], [1, 0], [1, 1]]),
        prompt_B=torch.tensor([0, 0, 1]),
    )
    # Each segment starts with the prompt's last token and ends before its completion's.
    assert packed.input_ids.tolist() == [[0, 11, 12, 1, 12], [21, 22, 23, 4, 0]]
    assert packed.targets.tolist() == [
        [IGNORED, IGNORED, 1, 2, 3],
        [IGNORED, IGNORED, 4, 5, IGNORED],
    ]
    assert packed.position_ids.tolist() == [[0, 0, 1, 2, 1], [0, 1, 2, 3, 0]]
    seen = packed.visible[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0],  # padding, which sees itself
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 0, 0, 1],  # the second completion sees nothing of the first
    ]
    values = torch.arange(10.0).view(2, 5)
    assert packed.unpack(values, 2).tolist() == [[2, 3], [4, 0], [7, 8]]


def test_nothing_to_score_is_a_zero_with_a_gradient():
    packed = pack(
        prompt_ids_NP=torch.tensor([[11, 12]]),
        prompt_mask_NP=torch.tensor([[1, 1]]),
        completion_ids_BC=torch.tensor([[1, 2], [3, 4]]),
        completion_mask_BC=torch.zeros(2, 2, dtype=torch.long),
        prompt_B=torch.tensor([0, 0]),
    )
    values = torch.ones(packed.input_ids.shape, requires_grad=True)
    out = packed.unpack(values, 2)
    out.sum().backward()
    assert out.tolist() == [[0, 0], [0, 0]]
    assert values.grad is not None
    assert values.grad.abs().sum() == 0


def test_log_probabilities_and_gradients_are_those_of_whole_sequences():
    model, processor = policy()
    model.train()
    prompts = ClipPrompts(rows(3), MadeUpFeatures(processor), processor)
    completions = {0: [[5, 6, 7], [8], [9, 10]], 1: [[3, 4], [300, 1, 2, 3]], 2: [[70, 71]]}
    ids = [prompts.ids(clip) for clip in completions]
    width = max(map(len, ids))
    flat = [(clip, row) for clip, group in completions.items() for row in group]
    packed = pack(
        torch.tensor([[0] * (width - len(row)) + row for row in ids]),
        torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
        torch.tensor([row + [0] * (4 - len(row)) for _, row in flat]),
        torch.tensor([[1] * len(row) + [0] * (4 - len(row)) for _, row in flat]),
        torch.tensor([clip for clip, _ in flat]),
    )
    logits = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask={"full_attention": packed.visible},
        use_cache=False,
        **prompts.media(list(completions), width),
    ).logits
    labels = packed.targets.clamp(min=0)[..., None]
    mine = packed.unpack(logits.log_softmax(-1).gather(-1, labels)[..., 0], 4)
    weights = torch.linspace(-1, 1, mine.numel()).view(mine.shape)
    (mine * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    for number, (clip, row) in enumerate(flat):
        alone = plain_logps(model, prompts, clip, row)
        assert torch.allclose(mine[number, : len(row)], alone, atol=1e-5)
        assert not mine[number, len(row) :].any()
        (alone * weights[number, : len(row)]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = parameter.grad.abs().max().clamp(min=1e-3)
            assert (gradients[name] - parameter.grad).abs().max() < 1e-4 * scale, name
