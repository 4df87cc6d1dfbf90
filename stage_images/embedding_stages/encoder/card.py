"""README.md of a checkpoint: what the model is, for whoever finds the folder. Standard library only; no dates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedding_stages.encoder.description import EncoderDescription

FILE: Final = "README.md"
LICENCES: Final = ("LICENSE", "LICENCE", "LICENSE.md", "LICENCE.md", "LICENSE.txt")
_LONGEST: Final = 120  # characters of a line of somebody else's file


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What became of the base model, as the stage that trained it knows."""

    base: str  # the manifest's spec.baseModel.name; empty where nobody said
    revision: str  # the commit or tag that the manifest names, or empty
    questions: int
    training_set: str  # sha256:<hex> of the artefact
    how: str  # such as "all weights"


def write_card(folder: Path, description: EncoderDescription, training: Training | None = None) -> None:
    """Write README.md: YAML that model hubs read, then Markdown. The same bytes for the same model."""
    parts = [_front(training), *_origin(folder, training), _use(description), _table(description)]
    (folder / FILE).write_text("\n".join(parts), encoding="utf-8")


def _front(training: Training | None) -> str:
    lines = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    if training is not None and training.base:
        lines.append(f"base_model: {json.dumps(training.base)}")
    return "\n".join(["---", *lines, "tags: [sentence-transformers, feature-extraction]", "---", ""])


def _origin(folder: Path, training: Training | None) -> list[str]:
    base = training.base if training is not None else ""
    lines = [f"# {base or 'An embedding model'}, fine-tuned" if training is not None else "# An embedding model", ""]
    if training is not None:
        revision = f" at revision `{training.revision}`" if training.revision else ""
        questions = f"{training.questions} questions with passages of the owner's documents"
        lines += [
            f"- Base model: {f'`{base}`' if base else 'unnamed'}{revision}.",
            f"- Trained ({training.how}) on {questions}; training set `{training.training_set or 'unnamed'}`.",
        ]
    licence = next((name for name in LICENCES if (folder / name).is_file()), None)
    if licence is None:
        lines.append("- Licence: the base model's, whose files hold none.")
    else:
        lines.append(f"- Licence: the base model's, in `{licence}`: {_title(folder / licence)}")
    return [*lines, ""]


def _title(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((" ".join(line.strip("# \t").split())[:_LONGEST] for line in lines if line.strip("# \t")), "empty")


def _use(description: EncoderDescription) -> str:
    lines = [
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer("path/of/this/folder")',
        'queries = model.encode_query(["..."])',
        'passages = model.encode_document(["..."])',
        "```",
        "",
        *(f"- {need}" for need in description.family.needs),
    ]
    if description.query_map:
        lines.append(
            "- Queries' vectors, and theirs alone, are multiplied by the matrix in `query_map.safetensors` and scaled "
            "to length 1; sentence-transformers from 5.0 on does so in `encode_query`. A server that does not know it "
            "answers queries as the base model does."
        )
    return "\n".join([*lines, ""])


def _table(description: EncoderDescription) -> str:
    rows: Mapping[str, str] = {
        "before queries": _code(description.prefixes["query"]),
        "before passages": _code(description.prefixes["passage"]),
        "tokens a text": str(description.max_tokens),
        "dimensions": ", ".join(map(str, description.dimensions)),
        "pooling": description.pooling.replace("_", " "),
        "similarity": "cosine; vectors have length 1",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items()), ""])


def _code(text: str) -> str:
    """As JSON spells it: prefixes may end in blanks or hold line breaks."""
    spelled = json.dumps(text, ensure_ascii=False).replace("`", "'").replace("|", "\\|")
    return f"`{spelled}`" if text else "nothing"
