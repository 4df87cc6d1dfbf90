"""Fine-tuning: a contrastive loss over mined hard negatives, gradients exact for any micro-batch, resumable.

scale, schedule, batches    pure: sizes, learning rates, which texts go through the encoder together
dataset                     the training set as token ids
loss, precision, trainer    torch: one optimizer step over padded batches
on_cpu, lanes               what such a step does differently on a CPU
optimizer, kept             its AdamW, and what it keeps between attempts and leaves behind
packed_trainer, memory      one over packs (on a GPU), and how large those may be
in_batch                    other questions' passages as negatives
lora                        adapters that are trained in the place of the weights
training, validation        the steps of a run, and which of its weights are published
world, launch, sharding     several processes, one an accelerator: what they agree on, who starts them, FSDP2
resume, stream              the state between attempts, written while training goes on
origin                      what the checkpoint's model card says of its training
settings, stage             the stage's work, from settings to result
"""
