"""A probe: a small classifier trained on the tokens that the language model is given.

It takes the mean visual and the mean audio token of each clip, and shows how much of the label these tokens hold. Where
the language model does much worse than the probe, the language model is at fault and not its towers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, recall_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.features import FeatureStore
from training.data.manifest import Row

BATCH = 64

Labels = Sequence[str] | NDArray[Any]


@torch.inference_mode()
def mean_tokens(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    store: FeatureStore,
    rows: Sequence[Row],
) -> NDArray[np.float32]:
    """(N, 2H) mean visual and mean audio token of each clip; zeros for a modality that a clip lacks."""
    gate_3 = model.model.gate(*processor.gate_inputs(processor.instruction))[0]
    out = torch.zeros(len(rows), 2, model.config.hidden_size)
    for begin in range(0, len(rows), BATCH):
        clips = [store.features(row) for row in rows[begin : begin + BATCH]]
        for place, name in enumerate(("vision_features", "audio_features")):
            have = [i for i, clip in enumerate(clips) if name in clip]
            if not have:
                continue
            features = torch.stack([clips[i][name] for i in have]).to(model.device, model.dtype)
            tokens = (
                model.model.mm_projector(features, gate_3.expand(len(have), 3)).flatten(1, 2)
                if place == 0
                else model.model.audio_projector(features)
            )
            normed = torch.nn.functional.rms_norm(tokens.float(), tokens.shape[-1:])
            out[[begin + i for i in have], place] = normed.mean(1).cpu()
    return np.asarray(out.flatten(1).numpy())


def token_classifier(seed: int = 0) -> Pipeline:
    """A small network on standardised tokens, for labels or for several statements; a tenth stops its training."""
    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (128,), alpha=1e-2, early_stopping=True, n_iter_no_change=8, random_state=seed
        ),
    )


def uar(truth: Labels, found: Labels) -> float:
    """Unweighted average recall in [0, 1]: the mean of the recalls of the classes that occur in `truth`."""
    return float(recall_score(truth, found, labels=sorted(set(truth)), average="macro"))


def fused_classifier(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    store: FeatureStore,
    train: Sequence[Row],
    tests: Mapping[str, Sequence[Row]],
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Train on some clips, test on others.

    Args:
        model: Whose connector and projector make the tokens.
        processor: Its processor.
        store: Features of all clips.
        train: Labelled clips to train on; a tenth of them stops the training.
        tests: Labelled clips of each split.
        seed: Of the classifier.

    Returns:
        Split -> WAR and UAR in [0, 1], for both modalities and for each alone.
    """
    width = model.config.hidden_size
    columns = {"both": slice(None), "video": slice(0, width), "audio": slice(width, None)}
    features = mean_tokens(model, processor, store, train)
    measured = {split: mean_tokens(model, processor, store, rows) for split, rows in tests.items()}
    out: dict[str, dict[str, float]] = {split: {} for split in tests}
    for condition, chosen in columns.items():
        classifier = token_classifier(seed)
        classifier.fit(features[:, chosen], [row.label for row in train])
        for split, rows in tests.items():
            found = classifier.predict(measured[split][:, chosen])
            wanted = [str(row.label) for row in rows]
            out[split][f"{condition}_war"] = float(accuracy_score(wanted, found))
            out[split][f"{condition}_uar"] = uar(wanted, found)
    return out
