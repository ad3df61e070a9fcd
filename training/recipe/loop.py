"""The loop that trains towers: a probe's own losses, by steps, into a log, from where it was stopped."""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emostream.errors import EmostreamError
from emostream.model.towers import ResidualBlock


def run_steps(
    probe: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    validate: Callable[[], dict[str, float]],
    *,
    name: str,
    steps: int,
    learning_rate: float,
    log: Path,
    say: Callable[[str], None],
    validate_every: int = 250,
    state: Path | None = None,
) -> dict[str, float]:
    """AdamW with warm-up and cosine decay to zero; returns the last validation scores.

    Args:
        probe: What is trained; all its parameters.
        losses: A batch's terms, by the step's number from 1; their sum is the loss. All its draws come from torch's
            own generator.
        validate: Scores for the log.
        name: For messages.
        steps: In all.
        learning_rate: Its highest.
        log: Gets a line of JSON every 50 steps.
        say: Told the same.
        validate_every: Steps from one validation to the next.
        state: Where the run is kept at every validation, so that it continues from there; None keeps nothing.

    Raises:
        EmostreamError: The loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(_groups(probe), lr=learning_rate, betas=(0.9, 0.98))
    warm = min(100, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps)),
    )
    done, before_s, scores = 0, 0.0, {}
    if state is not None and state.is_file():
        kept = torch.load(state, weights_only=True)
        probe.load_state_dict(kept["probe"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        torch.set_rng_state(kept["draws"])
        done, before_s, scores = kept["step"], kept["seconds"], kept["scores"]
        say(f"{name}: goes on from step {done}")
    begun_s = time.monotonic() - before_s
    for step in range(done + 1, steps + 1):
        probe.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            terms = losses(step)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise EmostreamError(
                f"{name} tower: the loss is {loss.item()} at step {step}. Lower --learning-rate."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 and step != steps:
            continue
        seconds = time.monotonic() - begun_s
        row: dict[str, float] = {"step": step, "seconds": round(seconds, 1)}
        row |= {key: round(float(term.detach()), 4) for key, term in terms.items()}
        if step % validate_every == 0 or step == steps:
            probe.eval()
            scores = validate()
            row |= scores
            if state is not None:
                _keep(state, probe, optimizer, schedule, step, seconds, scores)
        say(f"{name} {json.dumps(row)}  left {seconds / step * (steps - step) / 60:.1f} min")
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return scores


def _keep(
    state: Path,
    probe: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: int,
    seconds: float,
    scores: dict[str, float],
) -> None:
    part = state.with_name(f"{state.name}.part")
    kept = {
        "probe": probe.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "draws": torch.get_rng_state(),
        "step": step,
        "seconds": seconds,
        "scores": scores,
    }
    torch.save(kept, part)
    part.replace(state)


def _groups(probe: nn.Module) -> list[dict[str, object]]:
    """Matrices decay; norms, biases and positions do not."""
    decayed = [p for p in probe.parameters() if p.ndim > 1]
    others = [p for p in probe.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware; elsewhere it is slower than float32."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


class NormedConv(nn.Sequential):
    """A convolution with batch norm behind it, for as long as it is trained."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv, nn.BatchNorm2d(conv.out_channels))

    @property
    def weight(self) -> Tensor:
        """The convolution's, of which SigLIP reads the dtype."""
        return self[0].weight  # type: ignore[return-value]


@torch.no_grad()
def add_norms(network: nn.Module) -> None:
    """Start the convolutions below `network` where they learn, each with a norm; residual branches begin silent."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and not isinstance(parent, NormedConv):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                normed = NormedConv(layer)
                if isinstance(parent, ResidualBlock) and name == "conv2":
                    nn.init.zeros_(normed[1].weight)  # type: ignore[arg-type]
                setattr(parent, name, normed)


@torch.no_grad()
def renew_norms(network: nn.Module, run: Callable[[], object]) -> None:
    """Give trained convolutions norms again, which change nothing of what `run`'s pictures give: training goes on.

    Args:
        network: Whose norms were folded.
        run: Runs the network once on pictures as training has them.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and not isinstance(parent, NormedConv):
                setattr(parent, name, NormedConv(layer))
    hooks = [
        layer[0].register_forward_hook(partial(_match, layer[1]))
        for layer in network.modules()
        if isinstance(layer, NormedConv)
    ]
    network.train()
    run()
    for hook in hooks:
        hook.remove()


def _match(norm: Any, conv: nn.Module, given: object, found: Tensor) -> None:
    """Let a norm scale and shift by what it is about to take out."""
    channels = found.float().transpose(0, 1).flatten(1)
    norm.weight.copy_((channels.var(1, correction=0) + norm.eps).sqrt())
    norm.bias.copy_(channels.mean(1))


def fold_norms(network: nn.Module) -> None:
    """Put convolutions that do the same alone where `add_norms` added a norm."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, NormedConv):
                conv: Any = layer[0].eval()
                norm: Any = layer[1].eval()
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
