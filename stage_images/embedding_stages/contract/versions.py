"""The version of each stage's code. Raise one, on purpose, when the stage's results change for the same settings.

It is part of the identity of a stage's work, which the stage's image is not: an image of a new release does the same
work as the old one until a number here says otherwise. The server's stands for how it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedding_stages.contract import Stage

CODE_VERSIONS: Final[Mapping[Stage, int]] = {
    Stage.INPUTS: 2,  # keeps the characters that belong to words, reads include by gitignore's rules
    Stage.SDG: 4,  # sentences of any language, Markdown by CommonMark, joiners; multi-hop is about several passages
    Stage.PREP: 4,  # each withheld sentence asks as it stands and with its words
    Stage.FINETUNE: 2,  # a checkpoint that sentence-transformers and vLLM read, with a model card
    Stage.EVAL: 3,  # a query that is a passage is no result of its own
    Stage.EXPORT: 1,
    Stage.DEPLOY: 2,  # cleans texts as inputs does
    Stage.VERIFY: 2,  # measures as EVAL 3 does
}
