"""Training of a vision tower on the faces of people: stills that taggers voted on.

All faces lie in memory, cut and scaled as a face of a frame is. What the tower must tell are the votes, not one label:
people disagree about faces, and rare emotions live in the minority's votes. The head is thrown away.

Shape suffixes: N faces, B of a batch, S pixels a side, L patches, D tower width, E emotions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from emostream.labels import DEFAULT_LABELS
from emostream.model.modeling import EmostreamModel
from training.data.manifest import Row
from training.data.stills import jpeg, read_still
from training.evaluation.probe import uar
from training.recipe.actor_faces import ActorFaces
from training.recipe.loop import add_norms, fold_norms, renew_norms, run_steps
from training.recipe.tower_augment import stretch, warp
from training.recipe.towers import UNIT_STD
from training.synth.acting import ACTION_UNITS

#: A tagger alone may have slipped; FER2013's own label counts where a tagger says the same.
LEAST_VOTES: Final = 2
OWN_LABEL_WEIGHT: Final = 0.2
#: What a label of one tagger is worth: two agree on 61 % of faces.
ALONE: Final = 0.8
#: Unit -> emotions whose faces have it, by EMFACS (Friesen and Ekman 1983).
PROTOTYPES: Final = {
    "AU1": ("surprise", "sad", "fear"),
    "AU2": ("surprise", "fear"),
    "AU4": ("angry", "sad", "fear"),
    "AU5": ("surprise", "fear", "angry"),
    "AU6": ("happy",),
    "AU7": ("angry", "fear"),
    "AU9": ("disgust",),
    "AU10": ("disgust",),
    "AU12": ("happy",),
    "AU15": ("sad", "disgust"),
    "AU17": ("sad", "disgust", "angry"),
    "AU20": ("fear",),
    "AU23": ("angry",),
    "AU24": ("angry",),
    "AU26": ("surprise", "fear"),
    "AU27": ("surprise",),
}
#: Votes of ten from which on a face is clear.
CLEAR_VOTES: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Faces:
    """Faces of one part of the corpora.

    Attributes:
        pixels: (N, S, S) uint8, grey.
        targets: (N, E) float32, each row adds up to 1.
        labels: (N,) int64, what most taggers say; -1 where they are divided.
        clear: (N,) bool.
    """

    pixels: Tensor
    targets: Tensor
    labels: Tensor
    clear: Tensor


def read_faces(rows: Sequence[Row], side: int) -> Faces:
    """Faces of some rows, without those that nobody agrees on.

    Args:
        rows: Of stills, each a face in the frame that `people.crop` gives it.
        side: S.

    Raises:
        MediaError: A picture cannot be read.
    """
    pixels, targets, labels, clear = [], [], [], []
    for row in rows:
        if (target := soft_target(row)) is None:
            continue
        grey = cv2.cvtColor(read_still(row), cv2.COLOR_RGB2GRAY)
        way = cv2.INTER_AREA if grey.shape[0] > side else cv2.INTER_CUBIC
        pixels.append(cv2.resize(grey, (side, side), interpolation=way))
        targets.append(target)
        labels.append(DEFAULT_LABELS.index(row.label) if row.label in DEFAULT_LABELS else -1)
        clear.append(row.label is not None and row.votes.get(row.label, 0) >= CLEAR_VOTES)
    return Faces(
        pixels=torch.from_numpy(np.stack(pixels)),
        targets=torch.from_numpy(np.stack(targets)),
        labels=torch.tensor(labels),
        clear=torch.tensor(clear),
    )


def soft_target(row: Row) -> NDArray[np.float32] | None:
    """(E,) what a face shows by those who judged it, adding up to 1; None if they agree on nothing that we know."""
    target = np.zeros(len(DEFAULT_LABELS), np.float32)
    if not row.votes:
        if row.label not in DEFAULT_LABELS:
            return None
        target += (1 - ALONE) / len(target)
        target[DEFAULT_LABELS.index(row.label)] += ALONE
        return target
    everyone = sum(row.votes.values())
    for label, count in row.votes.items():
        if label in DEFAULT_LABELS and count >= LEAST_VOTES:
            target[DEFAULT_LABELS.index(label)] = count / everyone
    own = row.meta.get("fer2013")
    if own in DEFAULT_LABELS and row.votes.get(own, 0) >= 1:
        target[DEFAULT_LABELS.index(own)] += OWN_LABEL_WEIGHT
    return target / target.sum() if target.any() else None


def augment_faces(grey_BSS: Tensor) -> Tensor:
    """Mirror, turn, scale, shift, aspect, gamma, gain, sharpness, JPEG, tint, noise, a patch in the way.

    Args:
        grey_BSS: uint8.

    Returns:
        (B, 3, S, S) float32, about [-1, 1].
    """
    batch, side = grey_BSS.shape[0], grey_BSS.shape[-1]
    chosen = torch.nonzero(torch.rand(batch) < 0.15)[:, 0].tolist()
    if chosen:
        grey_BSS = grey_BSS.clone()
        for index in chosen:
            quality = int(torch.randint(20, 80, ()))
            grey_BSS[index] = torch.from_numpy(jpeg(grey_BSS[index].numpy(), quality))
    x = warp(
        grey_BSS[:, None].float() / 255,
        degrees=15,
        scales=(0.8, 1.25),
        shift=0.06,
        aspect=0.1,
    )
    x = x.clamp(0, 1) ** torch.exp((torch.rand(batch, 1, 1, 1) - 0.5) * 1.0)
    x = (x * 2 - 1) * (0.6 + 0.8 * torch.rand(batch, 1, 1, 1))
    x = x + (torch.rand(batch, 1, 1, 1) - 0.5) * 0.5
    blurred = torch.rand(batch) < 0.25
    x[blurred] = F.avg_pool2d(x[blurred], 3, 1, 1)
    # One field of noise a batch: drawing as many numbers as there are pixels costs more than the tower.
    x = x + torch.randn(1, side, side) * (torch.rand(batch) * 0.06)[:, None, None, None]
    for index in torch.nonzero(torch.rand(batch) < 0.25)[:, 0].tolist():
        x[index, :, stretch(side, 6, 21), stretch(side, 6, 21)] = torch.rand(()) * 2 - 1
    tint = 1 + (torch.rand(batch, 3, 1, 1) - 0.5) * 0.4
    tint[torch.rand(batch) < 0.5] = 1
    return x * tint


class FaceProbe(nn.Module):
    """A vision tower with a linear head on the mean of its patches, and two for actors, whose actions lie in places."""

    def __init__(self, model: EmostreamModel):
        super().__init__()
        width = model.config.mm_hidden_size
        self.tower = model.vision_tower
        self.dropout = nn.Dropout(0.2)
        self.emotion = nn.Linear(width, len(DEFAULT_LABELS))
        self.acted = nn.Linear(width, len(DEFAULT_LABELS))
        self.units = nn.Linear(width * model.config.patches_per_side**2, len(ACTION_UNITS))

    def tokens(self, pictures_B3SS: Tensor) -> Tensor:
        """(B, L, D) patches."""
        pictures = pictures_B3SS.contiguous(memory_format=torch.channels_last)
        tokens: Tensor = self.tower(pictures)
        return tokens.float()

    def forward(self, pictures_B3SS: Tensor) -> Tensor:
        """(B, E) logits of people's emotions."""
        logits: Tensor = self.emotion(self.dropout(self.tokens(pictures_B3SS).mean(1)))
        return logits

    def loss(
        self,
        faces: Faces,
        chosen: Tensor,
        actors: ActorFaces | None = None,
        acting: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Divergence from the votes of the chosen faces; of the chosen actors, error of units and emotion."""
        pixels = faces.pixels[chosen]
        if actors is not None:
            pixels = torch.cat([pixels, actors.pixels[acting]])
        tokens = self.tokens(augment_faces(pixels))
        people = self.emotion(self.dropout(tokens[: len(chosen)].mean(1))).float()
        terms = {
            "emotion": F.cross_entropy(people, faces.targets[chosen], label_smoothing=0.05),
        }
        if actors is not None:
            own = tokens[len(chosen) :]
            found = self.units(F.rms_norm(own, own.shape[-1:]).flatten(1)).float()
            seen = actors.seen[acting].float()
            error = F.smooth_l1_loss(found, actors.units[acting] / UNIT_STD, reduction="none")
            terms["units"] = (error * seen).sum() / seen.sum().clamp(min=1)
            acted = self.acted(self.dropout(own.mean(1))).float()
            labels = actors.labels[acting]
            if (labels >= 0).any():
                terms["acted"] = 0.5 * F.cross_entropy(acted, labels, ignore_index=-1)
        return terms

    @torch.inference_mode()
    def scores(self, faces: Faces, size: int = 256) -> Tensor:
        """(N, E) logits of faces as they are."""
        return torch.cat([self(pictures) for pictures in _pictures(faces.pixels, size)])

    @torch.inference_mode()
    def acts(self, pixels_NSS: Tensor, size: int = 256) -> Tensor:
        """(N, U) intensities of `ACTION_UNITS` in grey faces, as learned of actors; about [0, 1]."""
        return torch.cat(
            [
                self.units(F.rms_norm(tokens, tokens.shape[-1:]).flatten(1)) * UNIT_STD
                for tokens in map(self.tokens, _pictures(pixels_NSS, size))
            ]
        )

    @torch.inference_mode()
    def acting(self, actors: ActorFaces, size: int = 256) -> dict[str, float]:
        """Correlation of units that can be seen, and UAR (%) of what a face shows, of actors as they are."""
        tokens = map(self.tokens, _pictures(actors.pixels, size))
        logits = [self.acted(part.mean(1)) for part in tokens]
        found = self.acts(actors.pixels, size)
        pairs = torch.stack([found[actors.seen], actors.units[actors.seen]])
        known = actors.labels >= 0
        guessed = torch.cat(logits)[known].argmax(-1)
        return {
            "actors_units_r": round(float(torch.corrcoef(pairs)[0, 1]), 3),
            "actors_uar": round(100 * uar(actors.labels[known].numpy(), guessed.numpy()), 1),
        }


def _pictures(pixels_NSS: Tensor, size: int) -> Iterator[Tensor]:
    for part in pixels_NSS.split(size):
        yield part[:, None].expand(-1, 3, -1, -1).float() / 127.5 - 1


def transferred(probe: FaceProbe, faces: Faces) -> dict[str, float]:
    """How well units that were learned of actors tell people apart who show an emotion that they belong to.

    Returns:
        Unit -> area under the ROC curve, over clear faces: of those with an emotion of `PROTOTYPES` that has the unit,
        against those with another. The best of its emotions counts, since not all that share a unit show it as often.
    """
    values = probe.acts(faces.pixels)[faces.clear].numpy()
    labels = np.array([DEFAULT_LABELS[k] for k in faces.labels[faces.clear].tolist()])
    out = {}
    for unit, emotions in PROTOTYPES.items():
        found = values[:, ACTION_UNITS.index(unit)]
        others = ~np.isin(labels, emotions)
        areas = [
            roc_auc_score(
                labels[(labels == emotion) | others] == emotion, found[(labels == emotion) | others]
            )
            for emotion in emotions
            if (labels == emotion).any() and others.any()
        ]
        if areas:
            out[unit] = round(float(max(areas)), 3)
    return out


def judge(logits: Tensor, faces: Faces) -> dict[str, float]:
    """Accuracy and UAR (%) over the faces that have a label, and over the clear ones."""
    out: dict[str, float] = {}
    for name, kept in (("all", faces.labels >= 0), ("clear", faces.clear)):
        found, wanted = logits[kept].argmax(-1), faces.labels[kept]
        out[f"{name}_faces"] = int(kept.sum())
        out[f"{name}_accuracy"] = round(100 * float((found == wanted).float().mean()), 1)
        out[f"{name}_uar"] = round(100 * uar(wanted.numpy(), found.numpy()), 1)
    return out


def train_faces(
    model: EmostreamModel,
    train: Faces,
    validation: Faces,
    actors: Mapping[str, ActorFaces] | None = None,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> FaceProbe:
    """Train the tower in place; returns it with its heads.

    Faces are drawn with a frequency that falls with the root of how many there are of their kind.

    Args:
        model: Whose vision tower has a `ConvStem`, trained already where there are actors.
        train: To learn from.
        validation: For the log.
        actors: Beside each four people one of `train` is shown; those of `validation` are for the log.
        steps: In all.
        batch_size: B, people alone.
        learning_rate: Its highest.
        seed: Of the heads, the draws and the changes to faces.
        folder: For the log, and the state that an interrupted run goes on from.
        say: Told of progress.

    Raises:
        EmostreamError: The loss is no longer finite.
    """
    torch.manual_seed(seed)
    name = "faces" if actors is None else "faces_and_actors"
    siglip: Any = model.vision_tower.vision_tower["vision_model"]
    stem = siglip.embeddings.patch_embedding
    if actors is None:
        add_norms(stem)
    else:
        pixels = torch.cat([train.pixels[:512], actors["train"].pixels[:128]])
        renew_norms(stem, lambda: model.vision_tower(augment_faces(pixels)))
    probe: FaceProbe = FaceProbe(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    probe.requires_grad_(True)
    kinds = train.targets.argmax(-1)
    weight_N = torch.bincount(kinds, minlength=len(DEFAULT_LABELS))[kinds].float().rsqrt()

    def losses(step: int) -> dict[str, Tensor]:
        chosen = torch.multinomial(weight_N, batch_size, replacement=True)
        if actors is None:
            return probe.loss(train, chosen)
        acting = torch.randint(len(actors["train"].labels), (batch_size // 4,))
        return probe.loss(train, chosen, actors["train"], acting)

    def validate() -> dict[str, float]:
        scores = judge(probe.scores(validation), validation)
        return scores if actors is None else scores | probe.acting(actors["validation"])

    run_steps(
        probe,
        losses,
        validate,
        name=name,
        steps=steps,
        learning_rate=learning_rate,
        log=folder / f"{name}.jsonl",
        say=say,
        validate_every=400,
        state=folder / f"{name}.pt",
    )
    fold_norms(model.vision_tower)
    return probe.eval()
