"""The version of each stage's code. Raise one, on purpose, when the stage's results change for the same settings.

It is part of the identity of a stage's work, which the stage's image is not: an image of a new release does the same
work as the old one until a number here says otherwise. The server's stands for how it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedding_stages.contract import Stage

CODE_VERSIONS: Final[Mapping[Stage, int]] = {
    Stage.INPUTS: 1,
    Stage.SDG: 2,  # long runs of headings and signatures are in a passage
    Stage.PREP: 2,  # leaves near-duplicates of the evaluation out of training
    Stage.FINETUNE: 1,
    Stage.EVAL: 2,  # tells comparisons, for the gates
    Stage.EXPORT: 1,
    Stage.DEPLOY: 1,
    Stage.VERIFY: 1,
}
