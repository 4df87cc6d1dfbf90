"""What a resource starts from: its model and its documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedding_stages.contract.declare import Table, setting

DEFAULT_INCLUDE: Final = ("**/*.txt", "**/*.md", "**/*.text", "**/+([!.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel(Table):
    FIELD = "spec.baseModel"

    name: str = setting(
        shortest=1, longest=253, says="The model's name, for example nvidia/llama-nemotron-embed-1b-v2."
    )
    maxTokens: int | None = setting(
        None,
        low=8,
        high=8192,
        says="Longer texts are cut in every stage, and by the server where a request says truncate, tokens; "
        "at most 512 when absent.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus(Table):
    FIELD = "spec.corpus"

    include: tuple[str, ...] = setting(
        DEFAULT_INCLUDE,
        most=32,
        shortest=1,
        longest=256,
        says="Globs of the files to read, by gitignore's rules from the root on; when absent .txt, .text, .md and "
        "names without a dot that are not hidden.",
    )
    minTextLength: int = setting(
        50, low=1, high=1_000_000, says="Shorter documents are skipped and counted, characters."
    )
    version: str = setting(
        "",
        longest=64,
        says="Change it when documents, model or labelled set changed in place: everything is looked at again.",
    )
