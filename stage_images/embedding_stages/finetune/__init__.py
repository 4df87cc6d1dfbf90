"""Fine-tuning: a contrastive loss over mined hard negatives, gradients exact for any micro-batch, resumable.

scale, schedule, batches    pure: sizes, learning rates, which texts go through the encoder together
dataset                     the training set as token ids
loss, precision, trainer    torch: one optimizer step
resume                      the state between attempts
stage                       the stage's work, from settings to result
"""
