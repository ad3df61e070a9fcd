"""The whole run on a page and in a table: one row a file, the same bytes for the same results."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from stream.annotate.results import Row, Run
from stream.annotate.timeline import NOBODY, seconds, shares
from stream.view.palette import colours

_STYLE: Final = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{display:block;width:100%;height:20px}
svg.band{height:5px;margin-top:2px}.visible{fill:#5a6675}.several{fill:#1b2430}.nobody{fill:#e3e7ec}.speech{fill:#2a9d8f}
.key{display:inline-block;margin-right:1rem}.key i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
.error{color:#a01414}
"""


_BANDS: Final = "".join(
    f'<span class="key"><svg style="display:inline-block;width:.8em;height:.8em;margin-right:.3em" viewBox="0 0 1 1">'
    f'<rect width="1" height="1" class="{shade}"/></svg>{says}</span>'
    for shade, says in (
        ("visible", "somebody is visible"),
        ("several", "several people"),
        ("nobody", "nobody"),
        ("speech", "somebody speaks"),
    )
)


def table(rows: Sequence[Row], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the summary; every one has the same columns.

    Args:
        rows: Files.
        labels: Label list, of which each has a column with its share of the labelled time.
    """
    out = []
    for row in rows:
        share = shares(row.runs)
        out.append(
            {
                "file": row.name,
                "duration_s": row.duration_s,
                "windows": row.windows,
                "label": next(iter(share), ""),
                "changes": sum(a.label != b.label for a, b in pairwise(row.runs)),
                "reasons": row.reasons,
                "reasons_agree": row.agreed,
                "people_most": _most(row),
                "visible_s": seconds(run for run in row.people if run.label != NOBODY)
                if row.people
                else None,
                "speech_s": None if row.speech is None else seconds(row.speech),
                **{f"share_{label}": share.get(label, 0.0) for label in labels},
                "problems": "; ".join(row.problems),
                "error": row.error,
            }
        )
    return out


def _most(row: Row) -> int | None:
    """How many people are visible at once; None where nobody looked."""
    counts = [0 if run.label == NOBODY else int(run.label.split()[0]) for run in row.people]
    return max(counts, default=None)


def write_csv(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The summary for spreadsheets."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The summary for data frames."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)


def write_html(out: Path, rows: Sequence[Row], labels: Sequence[str], model: str) -> None:
    """A timeline of every file on one page that needs nothing else."""
    palette = colours(labels)
    good = [row for row in rows if not row.error]
    hours = sum(row.duration_s for row in good) / 3600
    longest_s = max((row.duration_s for row in good), default=1.0)
    key = "".join(
        f'<span class="key"><i style="background:{palette[label]}"></i>{escape(label)}</span>'
        for label in labels
    )
    body = "".join(_row(row, palette, longest_s) for row in rows)
    out.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>emostream annotate</title>'
        f"<style>{_STYLE}</style><h1>Annotated files</h1>"
        f"<p>{len(good)} files, {hours:.2f} hours, by {escape(model)}; {len(rows) - len(good)} could not be read.</p>"
        f"<p>{key}</p><p>{_BANDS}</p><table><tr><th>file<th>seconds<th>label<th>reasons"
        "<th style='width:50%'>rolling label, who is visible, speech</tr>"
        f"{body}</table></html>\n",
        encoding="utf-8",
    )


def _row(row: Row, palette: dict[str, str], longest_s: float) -> str:
    name = escape(row.name)
    if row.error:
        return f'<tr><td>{name}<td><td><td><td class="error">{escape(row.error)}</tr>'
    bars = "".join(_bar(run, f'fill="{palette[run.label]}"') for run in row.runs)
    bands = ["".join(_bar(run, f'class="{_shade(run)}"') for run in row.people)]
    bands.append("".join(_bar(run, 'class="speech"') for run in row.speech or ()))
    box = f'viewBox="0 0 {longest_s:.3f} 1" preserveAspectRatio="none"'
    drawn = "".join(f'<svg class="band" {box}>{band}</svg>' for band in bands if band)
    label = escape(next(iter(shares(row.runs)), ""))
    problems = escape("; ".join(row.problems))
    return (
        f'<tr><td title="{problems}">{name}<td class="n">{row.duration_s:.1f}<td>{label}<td class="n">{row.reasons}<td>'
        f"<svg {box}>{bars}</svg>{drawn}</tr>"
    )


def _bar(run: Run, style: str) -> str:
    return (
        f'<rect x="{run.start_s:.3f}" width="{run.end_s - run.start_s:.3f}" height="1" {style}>'
        f"<title>{escape(run.label)} {run.start_s:.1f}–{run.end_s:.1f} s</title></rect>"
    )


def _shade(run: Run) -> str:
    if run.label == NOBODY:
        return "nobody"
    return "visible" if run.label.startswith("1 ") else "several"
