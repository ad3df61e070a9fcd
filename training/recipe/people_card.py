"""The model card of a checkpoint that this repository trained on people, written from its result file."""

from collections.abc import Mapping
from typing import Any

_CARD = """\
---
license: cc-by-nc-sa-4.0
library_name: emostream
language: en
tags: [emotion-recognition, audio-visual, faces, voices, research]
---

# emostream small

An audio-visual emotion model in the layout of HumanOmni and R1-Omni that has seen and heard people: {parameters:.1f}
million parameters, {megabytes:.1f} MB. It is shown the face of the person in front, 64 pixels a side, and hears a voice
as it differs from everybody's or, once it has heard the person for a while, from that person's own (`standardised`);
beside that, what the speech of a window is like as a whole (`voice_heads`).

**For research alone: [CC BY-NC-SA 4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/).** The code of this
repository is Apache-2.0, and so is `--model tiny`; these weights are not, because of what they were trained on:

| set | what | licence |
|---|---|---|
| FER2013, votes of FER+ | faces from the web, ten taggers each | votes MIT; pictures for research |
| web faces | faces from the web, one tagger each | research |
| RAVDESS | acted English | CC BY-NC-SA 4.0 |
| nEMO | acted Polish | CC BY-NC-SA 4.0 |
| ASED | acted Amharic | research |
| rendered actors | this repository's | Apache-2.0 |

## What it is, and what it is not

People teach it to see and hear, rendered actors what single actions look like, how face and voice go together, and
words. It has never seen a person's face with that person's voice. Of people's faces its reasons speak of actions that
were learned of actors and that tell people apart (docs/LOG.md); nobody has coded these faces, so whether such a reason
is true has not been measured. Of voices they speak of pitch, its range, loudness and tension, as Praat measured them
while it was trained. Of what they say of test people's voices, {supported[0]:.0f} % is so by Praat, against the mean
over all that was recorded of the speaker; {supported[1]:.0f} % where the speaker was heard for a minute before.

The weights are those of `{ships}`. {tuning}

A label is a guess about an expression, not a fact about what a person feels. Do not use it to decide anything about
anyone. The European Union's AI Act (Regulation 2024/1689), Article 5(1)(f), prohibits systems that infer emotions of
people at work and in education, except for medical or safety reasons. Other uses have duties, among them to tell people
that emotion recognition is in use (Article 50). Check the law that applies to you before you point a camera at anybody.

## Use

```python
from emostream import load_model

model, processor = load_model("small")
```

Labels: happy, surprise, neutral, angry, disgust, sad, fear. Windows of 4 s, 8 frames. It is the default of
`emostream run`, `demo`, `infer` and `annotate`, and of `emostream.listen` and `recognize`.

## How well it does

The live label, on people whom no training saw; one seed of {seeds}. Voices among the labels that a corpus has.

{people}

{sexes}

Rendered actors, beside the tiny model, which has seen nobody else:

{actors}

How sure it is and how often it is right differ by {ece:.1f} points on test faces (expected calibration error;
temperature {temperature:g}, fitted on validation people and actors). Of neutral faces {neutral:.0f} % are called
neutral{talkers}.

Commit `{commit}`, {date}.
"""


def people_card(result: Mapping[str, Any]) -> str:
    """README.md of the checkpoint.

    Args:
        result: What `benchmarks/small.py` writes.
    """
    rows = [
        (f"faces, {kind}", scores)
        for kind, scores in result["faces"].items()
        if kind in ("all", "clear")
    ]
    rows += [
        (f"voices, {corpus}, {heard} s heard before", scores)
        for heard, corpora in result["voices"].items()
        for corpus, scores in corpora.items()
    ]
    people = _table(
        ("", "clips", "accuracy %", "UAR %"),
        [(name, s["clips"], s["accuracy"], s["uar"]) for name, s in rows],
    )
    sexes = _table(
        ("voices, nothing heard before", "clips", "accuracy %", "UAR %"),
        [(name, s["clips"], s["accuracy"], s["uar"]) for name, s in result["by_sex"].items()],
    )
    actors = _table(
        ("", "model", "clips", "UAR %, live label", "UAR %, reasoned", "claims supported %"),
        [
            (split, model, s["clips"], s["live_uar"], s["reasoned_uar"], s["supported"])
            for split, models in result["actors"].items()
            for model, s in models.items()
        ],
    )
    origin = result["provenance"]
    row = result["ships"].partition("-")[0]
    tuned = not result["ships"].startswith("cold_start")
    return _CARD.format(
        parameters=result["model"]["parameters"] / 1e6,
        megabytes=result["model"]["bytes"] / 1e6,
        ships=result["ships"],
        tuning="GRPO followed SFT." if tuned else "That is SFT, without GRPO.",
        seeds=sum(name.startswith(f"{row}-") for name in result["seeds"]),
        people=people,
        supported=[
            found["claim_support_rate"]["value"] for found in result["reasons_of_voices"].values()
        ],
        sexes=sexes,
        actors=actors,
        ece=result["faces"]["ece"],
        temperature=result["model"]["temperature"],
        neutral=result["faces"]["neutral_recall"],
        talkers=", of {clips} neutral talkers, seen and heard, {neutral}".format(
            **result["talkers"]
        )
        if "talkers" in result
        else "",
        commit=origin["commit"][:10],
        date=origin["date"][:10],
    )


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    aligned = ["---" if isinstance(value, str) else "---:" for value in rows[0]]
    lines = [head, aligned, *(["–" if v is None else str(v) for v in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
