"""Pre-training of a small model's towers, connector and projector, before there is a language model to train.

The published model takes SigLIP, Whisper and Qwen2 from pre-training on the web; the tiny one has to make its own.
Each modality is trained by itself to tell what is acted: action units frame by frame, pitch and voice quality token by
token, prosody and emotion of the clip. Heads are linear and read the tokens that the language model will read, so that
it finds there what it needs. They are thrown away.

Shape suffixes: B clips, T frames, Q visual tokens a frame, K audio tokens, H language width, U action units,
R tracks, E emotions.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from emostream import load_model, save_model
from emostream.labels import DEFAULT_LABELS
from emostream.model.modeling import EmostreamForCausalLM, EmostreamModel
from training.evaluation.probe import uar
from training.recipe.loop import add_norms, fold_norms, run_steps
from training.recipe.tower_augment import augment_mel, augment_pictures
from training.recipe.tower_data import FRAMES, NO_LABEL, TRACKS, Arrays, batches, read_shards
from training.synth.acting import ACTION_UNITS, PROSODY

logger = logging.getLogger(__name__)

Modality = Literal["video", "audio"]
Batch = dict[str, Tensor]

#: Spread of the action units, by which they are divided so that no loss drowns another.
UNIT_STD: Final = 0.25
VOICED: Final = 0.3


class VideoProbe(nn.Module):
    """Vision tower and connector with linear heads on the connector's tokens."""

    def __init__(self, model: EmostreamModel):
        super().__init__()
        width = model.config.hidden_size
        self.tower, self.connector = model.vision_tower, model.mm_projector
        # What an untrained gate says of any instruction, near enough: a third for each branch.
        self.gate_3 = torch.full((3,), 1 / 3)
        self.units = nn.Linear(width, len(ACTION_UNITS))
        self.emotion = nn.Linear(width, len(DEFAULT_LABELS))
        self.seen = nn.Linear(width, 1)
        # Without a readout of its own, place by place, the tower learns nothing through the connector for long.
        places = model.config.patches_per_side**2 * model.config.mm_hidden_size
        self.direct_units = nn.Linear(places, len(ACTION_UNITS))
        self.direct_emotion = nn.Linear(places, len(DEFAULT_LABELS))

    def inputs(self, batch: Batch, training: bool) -> tuple[Tensor, Tensor]:
        """Pictures (B, T, 3, S, S) and unit targets (B, T, U): two frames for training, all for testing."""
        frames, units = batch["frames"], batch["units"]
        if not training:
            return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1, units
        first = int(torch.randint(FRAMES - 1, ()))
        return augment_pictures(frames[:, first : first + 2]), units[:, first : first + 2]

    def forward(self, pictures_BTCSS: Tensor) -> tuple[Tensor, ...]:
        """Units (B, T, U), emotion logits (B, E), whether a face is seen (B,); both of the tower alone."""
        batch, steps = pictures_BTCSS.shape[:2]
        pictures = pictures_BTCSS.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.tower(pictures).unflatten(0, (batch, steps))
        tokens_BTQH = self.connector(features, self.gate_3.expand(batch, 3))
        frame_BTH = _normal(tokens_BTQH).mean(2)
        clip_BH = frame_BTH.mean(1)
        places_BTP = _normal(features).flatten(2)
        return (
            self.units(frame_BTH),
            self.emotion(clip_BH),
            self.seen(clip_BH)[:, 0],
            self.direct_units(places_BTP),
            self.direct_emotion(places_BTP).mean(1),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Each term by name."""
        pictures, units = self.inputs(batch, training=True)
        found, emotion, seen, direct_units, direct_emotion = self(pictures)
        visible_B1U = batch["unit_seen"][:, None].float()

        def units_loss(found: Tensor) -> Tensor:
            error = F.smooth_l1_loss(found, units / UNIT_STD, reduction="none") * visible_B1U
            return error.sum() / (visible_B1U.sum() * units.shape[1]).clamp(min=1)

        return {
            "units": units_loss(found),
            "emotion": _emotion_loss(emotion, batch["face"]),
            "direct_units": units_loss(direct_units),
            "direct_emotion": _emotion_loss(direct_emotion, batch["face"]),
            "seen": F.binary_cross_entropy_with_logits(seen, (batch["face"] >= 0).float()),
        }

    @torch.inference_mode()
    def scores(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """(found, wanted) for the report."""
        pictures, units = self.inputs(batch, training=False)
        found, emotion, _, _, direct = self(pictures)
        visible = batch["unit_seen"][:, None].expand_as(units)
        return {
            "emotion": (emotion.argmax(-1), batch["face"]),
            "direct_emotion": (direct.argmax(-1), batch["face"]),
            "units": (found[visible] * UNIT_STD, units[visible]),
        }


class AudioProbe(nn.Module):
    """Audio tower and projector with linear heads on the projector's tokens."""

    def __init__(self, model: EmostreamModel):
        super().__init__()
        width = model.config.hidden_size
        self.tower, self.projector = model.audio, model.audio_projector
        self.owner = nn.ModuleList([model.audio_tower, model.audio_projector])
        self.emotion = nn.Linear(width, len(DEFAULT_LABELS))
        self.prosody = nn.Linear(width, len(PROSODY))
        self.heard = nn.Linear(width, 1)
        self.tracks = nn.Linear(width, len(TRACKS))

    def forward(self, mel_BFM: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Emotion logits (B, E), prosody (B, 9), whether a voice is heard (B,), tracks (B, K, R)."""
        tokens_BKH = _normal(self.projector(self.tower(mel_BFM)))
        clip_BH = tokens_BKH.mean(1)
        return (
            self.emotion(clip_BH),
            self.prosody(clip_BH),
            self.heard(clip_BH)[:, 0],
            self.tracks(tokens_BKH),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Each term by name."""
        emotion, prosody, heard, tracks = self(augment_mel(batch["mel"].float()))
        audible = (batch["voice"] != NO_LABEL).float()
        error_B = F.smooth_l1_loss(prosody, batch["prosody"], reduction="none").mean(-1)
        wanted = batch["tracks"]
        voiced_BK = (wanted[..., 2] > VOICED) * audible[:, None]
        shape = F.smooth_l1_loss(tracks[..., :2], wanted[..., :2] * 2, reduction="none").mean(-1)
        voicing = F.smooth_l1_loss(tracks[..., 2], wanted[..., 2], reduction="none").mean(-1)
        return {
            "prosody": (error_B * audible).sum() / audible.sum().clamp(min=1),
            "emotion": _emotion_loss(emotion, batch["voice"]),
            "heard": F.binary_cross_entropy_with_logits(heard, audible),
            "tracks": (shape * voiced_BK).sum() / voiced_BK.sum().clamp(min=1)
            + (voicing * audible).sum() / audible.sum().clamp(min=1),
        }

    @torch.inference_mode()
    def scores(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """(found, wanted) for the report."""
        emotion, prosody, _, _ = self(batch["mel"].float())
        audible = batch["voice"] != NO_LABEL
        return {
            "emotion": (emotion.argmax(-1), batch["voice"]),
            "prosody": (prosody[audible].flatten(), batch["prosody"][audible].flatten()),
        }


def _normal(tokens: Tensor) -> Tensor:
    """As the language model sees them: RMS-normalised."""
    return F.rms_norm(tokens.float(), tokens.shape[-1:])


def _emotion_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    if not (wanted >= 0).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, wanted, ignore_index=NO_LABEL, label_smoothing=0.05)


@torch.no_grad()
def _prepare_vision(model: EmostreamModel) -> None:
    """Start a small SigLIP where it learns: strong positions, near-silent residual branches, normed stem."""
    siglip: Any = model.vision_tower.vision_tower["vision_model"]
    nn.init.normal_(siglip.embeddings.position_embedding.weight, std=0.5)
    for layer in siglip.encoder.layers:
        nn.init.normal_(layer.self_attn.out_proj.weight, std=0.004)
        nn.init.normal_(layer.mlp.fc2.weight, std=0.004)
    add_norms(siglip.embeddings.patch_embedding)


def train(
    model: EmostreamForCausalLM,
    modality: Modality,
    data: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    log: Path,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Train one modality's tower and connector in place; returns the last validation scores.

    Raises:
        EmostreamError: The loss is no longer finite.
    """
    torch.manual_seed(seed)
    probe = VideoProbe(model.model) if modality == "video" else AudioProbe(model.model)
    if modality == "video":
        _prepare_vision(model.model)
    for module in model.modules():  # on a CPU, fused attention is the slower one at these sizes
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation = "eager"
    for parameter in probe.parameters():
        parameter.requires_grad_(True)
    shards = read_shards(data / "train")
    held_out = read_shards(data / "validation")
    feed = batches(shards, batch_size, np.random.default_rng(seed))
    scores = run_steps(
        probe,
        lambda step: probe.loss(next(feed)),
        lambda: validate(probe, held_out, batch_size),
        name=modality,
        steps=steps,
        learning_rate=learning_rate,
        log=log,
        say=say,
    )
    if modality == "video":
        fold_norms(model.model.vision_tower)
    return scores


def validate(probe: VideoProbe | AudioProbe, shards: list[Arrays], size: int) -> dict[str, float]:
    """UAR (%) of the clip's acted emotion in this modality, and correlation of the regression."""
    gathered: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for batch in _in_order(shards, size):
        for name, pair in probe.scores(batch).items():
            gathered.setdefault(name, []).append(pair)
    out = {}
    for name, pairs in gathered.items():
        found, wanted = (torch.cat(parts).float().numpy() for parts in zip(*pairs, strict=True))
        if name.endswith("emotion"):
            known = wanted >= 0
            out[f"{name}_uar"] = round(100 * uar(wanted[known], found[known]), 1)
        else:
            out[f"{name}_r"] = round(float(np.corrcoef(found, wanted)[0, 1]), 3)
    return out


def _in_order(shards: list[Arrays], size: int) -> Iterator[Batch]:
    for shard in shards:
        for begin in range(0, len(shard["label"]), size):
            yield {
                name: torch.from_numpy(np.array(array[begin : begin + size]))
                for name, array in shard.items()
            }


def main() -> None:
    """Command line of one modality's pre-training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modality", choices=("video", "audio"))
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to start from")
    parser.add_argument("--data", type=Path, required=True, help="folder of rendered shards")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, processor = load_model(options.model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    train(
        model,
        options.modality,
        options.data,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        log=options.out.parent / f"{options.out.name}.jsonl",
        say=logger.info,
    )
    save_model(model, processor, options.out)


if __name__ == "__main__":
    main()
