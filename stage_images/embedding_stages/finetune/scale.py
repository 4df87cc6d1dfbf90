"""How large and how many the steps are. Pure, but for what is logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from embedding_stages.contract.settings import Finetune

# NVIDIA embed recipe, profile llama: the sizes below which its auto-scaling acts.
DEFAULT_GLOBAL_BATCH = 128
SMALL_SET = 2000  # examples
FEW_STEPS = 50
RANKING_STEPS = 64  # of an epoch towards a ranking, where the batch is free; docs/quality.md


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes a run uses."""

    global_batch: int  # examples an optimizer step
    steps_per_epoch: int
    total_steps: int
    checkpoint_every: int  # steps
    warnings: tuple[str, ...]


def scale_of(settings: Finetune, *, examples: int, ranking: bool, log: Callable[..., None]) -> Scale:
    """What `settings` make of so many examples, with a word in the log about each size that is not as asked."""
    scale = auto_scale(
        examples=examples,
        epochs=settings.epochs,
        global_batch=settings.globalBatchSize,
        checkpoint_every=settings.checkpointEverySteps,
        ranking=ranking,
    )
    log("training set read", examples=examples, steps=scale.total_steps)
    for warning in scale.warnings:
        log("warning", warning=warning)
    return scale


def auto_scale(*, examples: int, epochs: int, global_batch: int, checkpoint_every: int, ranking: bool = False) -> Scale:
    """The recipe's rules for small training sets (NVIDIA embed recipe, profile llama).

    - The default global batch of 128 and fewer than 2,000 examples: max(16, min(64, examples // 8)). Another
      global batch was chosen on purpose and stays. `ranking`: what is learnt is a teacher's ranking, in one epoch, so
      the batch is what makes RANKING_STEPS of it, 8 to 128.
    - Fewer steps than three checkpoint intervals: interval = max(1, steps // 3).
    - Fewer than 50 steps: a warning.
    The last step of an epoch takes the examples that are left; its loss is the mean over those, so that every
    example is seen once an epoch (the alternative, dropping them, would lose up to half of a small set).
    """
    warnings = []
    asked, global_batch = global_batch, _batch(global_batch, examples, ranking=ranking)
    if global_batch != asked and not ranking:
        warnings.append(f"globalBatchSize scaled from {DEFAULT_GLOBAL_BATCH} to {global_batch}: {examples} examples")
    steps_per_epoch = -(-examples // global_batch)
    total = steps_per_epoch * epochs
    if total < 3 * checkpoint_every:
        checkpoint_every = max(1, total // 3)
    if total < FEW_STEPS:
        warnings.append(f"only {total} steps, fewer than {FEW_STEPS}: add documents or pairs, or raise epochs")
    return Scale(
        global_batch=global_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        checkpoint_every=checkpoint_every,
        warnings=tuple(warnings),
    )


def _batch(asked: int, examples: int, *, ranking: bool) -> int:
    """The global batch for so many examples."""
    if asked != DEFAULT_GLOBAL_BATCH:
        return asked
    if ranking:
        return max(8, min(DEFAULT_GLOBAL_BATCH, examples // RANKING_STEPS))
    return max(16, min(64, examples // 8)) if examples < SMALL_SET else asked
