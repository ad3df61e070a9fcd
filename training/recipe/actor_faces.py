"""Faces of rendered actors, cut as a person's are, with what they do: by them a vision tower learns single actions.

Shape suffixes: N faces, S pixels a side, U action units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from emostream.people.crop import crop_face
from emostream.people.faces import FaceDetector
from training.recipe.tower_data import Arrays


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorFaces:
    """Faces in frames of rendered clips.

    Attributes:
        pixels: (N, S, S) uint8, grey.
        units: (N, U) float32, intensity in [0, 1] of each of `ACTION_UNITS`.
        seen: (N, U) bool, whether nothing hides it.
        labels: (N,) int64, the emotion that the face shows; -1 where it is hidden.
    """

    pixels: Tensor
    units: Tensor
    seen: Tensor
    labels: Tensor


def cut_actor_faces(shards: Sequence[Arrays], side: int, margin: float, file: Path) -> ActorFaces:
    """Find and cut the faces of rendered examples, or read what was cut before.

    Frames in which the detector finds nobody are left out: live use shows the model no such face either.

    Args:
        shards: Of `tower_data.read_shards`.
        side: S.
        margin: The checkpoint's `crop_margin`.
        file: Where they are kept.
    """
    if not file.is_file():
        found: dict[str, list[Any]] = {name: [] for name in ("pixels", "units", "seen", "labels")}
        detector = FaceDetector()
        for shard in shards:
            for place, frames in enumerate(shard["frames"]):
                for frame, units in zip(frames, shard["units"][place], strict=True):
                    faces = detector.find(np.ascontiguousarray(frame))
                    if not faces:
                        continue
                    box = max(faces, key=lambda face: face.box.side).box
                    crop = crop_face(frame, box, size_px=side, margin=margin)
                    found["pixels"].append(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY))
                    found["units"].append(units)
                    found["seen"].append(shard["unit_seen"][place])
                    found["labels"].append(shard["face"][place])
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.stem}.part.npz")
        arrays: dict[str, Any] = {name: np.stack(values) for name, values in found.items()}
        np.savez(part, **arrays)
        part.replace(file)
    with np.load(file, allow_pickle=False) as kept:
        return ActorFaces(**{name: torch.from_numpy(kept[name]) for name in kept.files})
