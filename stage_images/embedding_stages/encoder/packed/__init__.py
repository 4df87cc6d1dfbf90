"""Texts of different lengths laid end to end, so that no product is spent on padding.

`packs` decides which texts lie together (numpy) and `device` sends them to the accelerator. `kernels` are the Triton
programs; `ops`, and `biased` for models with biases and layer norms, call them as functions of tensors; `check`
compares them with torch once a run. `base` is what every model over packs is: weights and gradients in one flat tensor
each. `llama`, of sizes in `shape`, and `bert` are the models, which a family names (`Family.packed_model`), `pooling`
is their last step. `files` reads and saves weights, `encoder` embeds with a model, `small` is quick with a few texts.
"""
