"""`eval`: run a model over a manifest, batched and resumable, and write eval.json with its report."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from emostream.errors import ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.features import FeatureStore
from training.data.manifest import Row
from training.data.same_run import claim, weights_digest, write_whole
from training.evaluation.predict import EvalSettings, predict
from training.evaluation.report import write_report
from training.evaluation.results import (
    OUTCOMES,
    PREDICTIONS,
    RESULT,
    RUN,
    Prediction,
    judge_all,
    summarise,
)

logger = logging.getLogger(__name__)


def evaluate(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    out: str | Path,
    settings: EvalSettings | None = None,
    *,
    store: FeatureStore | None = None,
    model_name: str = "",
    manifest_name: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluate a model on clips: predictions.jsonl, clips.jsonl, eval.json, report.md and plots.

    Predictions are appended batch by batch. A second call with the same model, clips and settings
    continues after the last whole one. Clips that cannot be decoded are skipped, named and counted.

    Args:
        model: From `load_model`, on its device.
        processor: Likewise.
        rows: Clips with labels; rows without one are skipped and counted.
        out: Folder for the results.
        settings: How to evaluate.
        store: Features of the clips by this model's towers, from `training.data.features`; without it
            every clip is decoded and encoded anew.
        model_name: For the report.
        manifest_name: For the report.
        on_progress: Called with the number of clips done and of all.

    Returns:
        The content of eval.json.

    Raises:
        ConfigError: There are no rows, a label is not in the label set, no clip is usable, or `out`
            holds the results of another evaluation.
    """
    settings = settings or EvalSettings()
    out = Path(out)
    if not rows:
        raise ConfigError("eval: no rows to evaluate; wanted a manifest with some")
    _check_labels(rows, settings.labels)
    out.mkdir(parents=True, exist_ok=True)
    claim(out / RUN, _fingerprint(model, rows, settings), "evaluation")
    done = _resume(out / PREDICTIONS)
    started, resumed = time.perf_counter(), len(done)
    todo = [i for i in range(len(rows)) if i not in done]
    on_progress(len(done), len(rows))
    with (out / PREDICTIONS).open("a", encoding="utf-8") as file:
        for batch in predict(model, processor, rows, todo, settings, store):
            for prediction in batch:
                done[prediction.index] = prediction
                file.write(json.dumps(prediction.to_json()) + "\n")
            file.flush()
            on_progress(len(done), len(rows))
    bare = model.config.answer_style == "bare"
    cues = {i: cues for i, row in enumerate(rows) if (cues := row.cues) is not None}
    predictions = [done[i] for i in range(len(rows))]
    outcomes = judge_all(predictions, settings.labels, cues, bare=bare)
    write_whole(out / OUTCOMES, "".join(json.dumps(o.to_json()) + "\n" for o in outcomes))
    result = {
        "model": model_name,
        "manifest": manifest_name,
        **summarise(predictions, outcomes, settings.labels),
        "settings": asdict(settings),
        "provenance": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "features": "cached" if store is not None else "computed",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "seconds": round(time.perf_counter() - started, 3),
            "clips_resumed": resumed,
        },
    }
    write_whole(out / RESULT, json.dumps(result, indent=1) + "\n")
    write_report(result, out)
    return result


def _check_labels(rows: Sequence[Row], labels: Sequence[str]) -> None:
    for row in rows:
        if row.label is not None and row.label not in labels:
            raise ConfigError(
                f"eval: {row.path} is labelled {row.label!r}; wanted one of {', '.join(labels)}; "
                "name the manifest's labels with --labels"
            )


def _fingerprint(
    model: EmostreamForCausalLM, rows: Sequence[Row], settings: EvalSettings
) -> dict[str, Any]:
    """What must be the same for predictions to belong to one evaluation; batching need not be."""
    clips = hashlib.sha256()
    for row in rows:
        heard = f" {row.heard_s}" * bool(row.heard_s)
        clips.update(f"{row.path.name} {row.label} {row.start_s} {row.end_s}{heard}\n".encode())
    chosen = asdict(settings)
    for name in ("batch_size", "loaders"):
        del chosen[name]
    if not settings.heard_s:
        del chosen["heard_s"]
    crop = model.config.frame_crop, model.config.crop_margin
    chosen["shown"] = crop if crop[0] == "face" else None
    return {"weights": weights_digest(model), "clips": clips.hexdigest(), **chosen}


def _resume(path: Path) -> dict[int, Prediction]:
    """Read earlier predictions; from a damaged line on they are taken off the file and made anew."""
    if not path.exists():
        return {}
    done: dict[int, Prediction] = {}
    kept = 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        try:
            prediction = Prediction.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError):
            break
        if not line.endswith(b"\n"):
            break
        done[prediction.index] = prediction
        kept += len(line)
    if kept < len(data):
        logger.warning("%s is damaged behind prediction %d; the rest is made anew", path, len(done))
        with path.open("r+b") as file:
            file.truncate(kept)
    return done
