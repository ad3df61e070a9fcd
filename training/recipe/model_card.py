"""The model card of a checkpoint that this repository trained on rendered actors, written from its result file."""

from typing import Any

from training.evaluation.table import TITLES, markdown

_HEAD = """\
---
license: apache-2.0
library_name: emostream
language: en
tags: [emotion-recognition, audio-visual, synthetic-data, grpo]
---

# emostream tiny

A small audio-visual emotion model in the layout of HumanOmni and R1-Omni: SigLIP frames and Whisper sound, an
instruction-gated connector, and a Qwen2 language model that writes `<think>…</think>\\n<answer>…</answer>`.
{size}It runs in real time on two CPU cores, as `emostream run --model tiny`.

## What it is for

To run the whole pipeline without a download, to test software that subscribes to it, and to try training recipes on two
cores. Every part of it was trained by this repository, from random weights.

## What it is not

**It was trained on rendered actors only.** It has never seen a human face or heard a human voice, and how well it reads
real people has not been measured: expect little. For real recordings use `small`, the default, for research,
a published checkpoint, `emostream run --model HUB_ID`, or train on your own clips.

A label is a guess about an expression, not a fact about what a person feels. Do not use it to decide anything about
anyone. The European Union's AI Act (Regulation 2024/1689), Article 5(1)(f), prohibits systems that infer emotions of
people at work and in education, except for medical or safety reasons. Other uses have duties, among them to tell people
that emotion recognition is in use (Article 50). Check the law that applies to you before you point a camera at anybody.
"""

_USE = """\
## Use

```python
from emostream import load_model

model, processor = load_model("tiny")
# frames: uint8 (8, H, W, 3) RGB; audio: float32 (S,) at 16 kHz; either may be None
inputs = processor(frames=frames, audio=audio)
tokens = model.generate(**inputs, max_new_tokens=128)
```
"""

_RECIPE = """\
## How it was made

`python -m training.recipe.tiny` makes it. The towers are trained first, each modality by itself, to tell what an actor
does. Then they are frozen. The cold start teaches reasoned answers that are composed from what the actor did and never
name the emotion before the answer; its last part leaves out of the reasons what cannot be told from the clip. GRPO
follows, with rewards for the right label, for the form, and for reasoning that the recorded actions bear out.
"""

_LABELS = "Labels: happy, surprise, neutral, angry, disgust, sad, fear. Windows of 4 s, 8 frames."


def model_card(result: dict[str, Any]) -> str:
    """README.md of the checkpoint.

    Args:
        result: Of `training.evaluation.table.compare`, with `model` (`parameters`, `bytes`), `ships` (`row`, `seed`),
            `recipe` (a list of `step`, `what`, `minutes`; may be empty) and `provenance` beside it.
    """
    model, ships, origin = result["model"], result["ships"], result["provenance"]
    size = f"{model['parameters'] / 1e6:.1f} million parameters, {model['bytes'] / 1e6:.1f} MB. "
    steps = [f"| {s['step']} | {s['what']} | {s['minutes']:.0f} |\n" for s in result["recipe"]]
    title = TITLES.get(ships["row"], ships["row"]).removeprefix("then ")
    parts = [
        _HEAD.format(size=size),
        f"{_LABELS}\n",
        _USE,
        _RECIPE,
        *(["".join(["| step | what | minutes |\n|---|---|---:|\n", *steps])] if steps else []),
        f"On {origin['machine']['cores']} cores ({origin['machine']['cpu']}). The corpus is rendered by "
        "`emostream-train corpus synth`; actors of `train`, `test` and `ood` are different, and `ood` also has another "
        "way of drawing faces and of making voices.\n",
        f"## How well it does\n\nThe weights are those of “{title}”, seed {ships['seed']}.\n",
        markdown(result),
        "Claims are what the reasoning says of face and voice. They are read by a lexicon that no reward used, and "
        "checked against what the actor did.\n",
        f"Commit `{origin['commit'][:10]}`, {origin['date'][:10]}. Apache-2.0.\n",
    ]
    return "\n".join(parts)
