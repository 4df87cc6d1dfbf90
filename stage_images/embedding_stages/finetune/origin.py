"""What a checkpoint's model card says of how it was made."""

from __future__ import annotations

from pathlib import Path

from embedding_stages.contract import Artefact
from embedding_stages.encoder.card import Training, write_card
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.runner import StageContext


def write_origin(context: StageContext, checkpoint: Path, *, questions: int, how: str) -> None:
    """Write the card of a checkpoint that is saved; rank 0 alone does. `how`: what was trained."""
    told, trained_on = context.request.base_model, context.request.inputs.get(Artefact.TRAINING_SET)
    training = Training(
        base=told.get("name", ""),
        revision=told.get("revision", ""),
        questions=questions,
        training_set="" if trained_on is None else trained_on.digest,
        how=how,
    )
    write_card(checkpoint, EncoderDescription.load(checkpoint), training)
