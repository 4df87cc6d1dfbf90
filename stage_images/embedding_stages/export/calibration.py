"""The passages by which quantization learns the range of each value: a part of the training set's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.export.drawn import at_places, even_places
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, INPUT_IDS
from embedding_stages.export.parity import batches_of
from embedding_stages.formats.lines import FormatError, read_records, text_of
from embedding_stages.formats.training_set import PASSAGES

PASSAGES_READ: Final = 128
_FIELD: Final = "spec.stages.export.quantization"
Feed = dict[str, Any]


def calibration_texts(training_set: Path) -> list[str]:
    """Up to 128 passages, evenly over the file, which is sorted by documents. Memory holds no others: the file is read
    twice. Raises BadInput `TrainingSetInvalid`, `TrainingSetEmpty`.
    """

    def passages() -> Iterator[str]:
        return (text_of(record, "text", where) for where, record in read_records(training_set / PASSAGES))

    try:
        places = even_places(sum(1 for _ in passages()), PASSAGES_READ)
        texts = at_places(passages(), places)
    except FormatError as error:
        raise BadInput("TrainingSetInvalid", f"training set: {error}", field="spec.stages.prep") from error
    if not texts:
        cure = "set it to none, or add documents"
        raise BadInput("TrainingSetEmpty", f"there are no passages to calibrate with; {cure}", field=_FIELD)
    return texts


def feeds(texts: list[str], tokenizer: TextTokenizer, description: EncoderDescription) -> Iterator[Feed]:
    """The graph's inputs for batches of passages: int64 ids and mask (batch, tokens), dimensions (batch,)."""
    rows = tokenizer.encode(texts, "passage")
    for batch in batches_of([len(row) for row in rows]):
        ids, mask = tokenizer.pad([rows[at] for at in batch])
        sizes = np.full(len(ids), description.vector_size, dtype=np.int64)
        yield {INPUT_IDS: ids, ATTENTION_MASK: mask, DIMENSIONS: sizes}
