"""Rows of results as a markdown table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]

OURS: Final = "ours"


def write_json(path: Path | None, rows: Sequence[Row]) -> None:
    """All that is known, failed contestants too; called after each one, so that an early end loses nothing."""
    if path is not None:
        path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


def training_table(rows: Sequence[Row]) -> str:
    """One row a contestant and length model, with how many times faster ours is."""
    return _table(
        rows,
        [
            ("step ms", lambda row: f"{row['step_ms']:,.0f}"),
            ("valid tok/s", lambda row: f"{row['tok_s']:,}"),
            *_common_columns(rows),
            ("padding", lambda row: f"{row['padding']:.2f}x" if row.get("padding") else ""),
            ("first loss", lambda row: f"{row['losses'][0]:.4f}" if row.get("losses") else ""),
            ("how", lambda row: str(row["notes"])),
        ],
    )


def embedding_table(rows: Sequence[Row]) -> str:
    """The same for embedding."""
    return _table(
        rows,
        [
            ("s", lambda row: f"{row['seconds']:,.2f}"),
            ("passages/s", lambda row: f"{row['passages_s']:,.0f}"),
            ("valid tok/s", lambda row: f"{row['tok_s']:,}"),
            *_common_columns(rows),
            ("cosine", lambda row: f"{row['cosine']:.5f}" if row.get("cosine") is not None else ""),
            ("warm-up s", lambda row: f"{row['warmup_s']:.1f}"),
            ("how", lambda row: str(row["notes"])),
        ],
    )


def failures(rows: Sequence[Row]) -> str:
    """The last lines of each contestant that failed."""
    parts = [
        f"{row['model']}, {row['name']}, {row['lengths']}: {row['failed']}\n"
        + "\n".join(f"    {line}" for line in row["output"])
        for row in rows
        if row.get("output")
    ]
    return "\n\n".join(parts)


def _common_columns(rows: Sequence[Row]) -> list[Column]:
    return [
        ("TFLOP/s", lambda row: f"{row['tflops']:,.0f}"),
        ("% of GEMM", lambda row: f"{100 * row['tflops'] / row['gemm']:.0f}" if row.get("gemm") else ""),
        ("peak GB", lambda row: f"{row['peak_gb']:.1f}"),
        ("ours / this", lambda row: _ratio(rows, row)),
    ]


def _ratio(rows: Sequence[Row], row: Row) -> str:
    """Ours over this one, in valid tokens a second."""
    for other in rows:
        same = all(other[name] == row[name] for name in ("model", "lengths"))
        if other["name"] == OURS and same and "failed" not in other:
            return f"{other['tok_s'] / row['tok_s']:.2f}x"
    return ""


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    lines = [
        "| " + " | ".join(["model", "lengths", "contestant", *(title for title, _ in columns)]) + " |",
        "|" + "---|" * (len(columns) + 3),
    ]
    for row in rows:
        if "failed" in row:
            cells = [*[""] * (len(columns) - 1), f"**{row['failed']}**"]
        else:
            cells = [cell(row) for _, cell in columns]
        lines.append("| " + " | ".join([row["model"], row["lengths"], row["name"], *cells]) + " |")
    return "\n".join(lines)
