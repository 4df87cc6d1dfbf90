"""Texts of different lengths laid end to end, so that no product is spent on padding.

`packs` decides which texts lie together (numpy) and `device` sends them to the accelerator. `kernels` are the Triton
programs and `ops` calls them as functions of tensors; `check` compares them with torch once a run. `llama` is the model
over them, of sizes in `shape`, and `pooling` its last step; `encoder` embeds and saves with it, `small` is quick with a
few texts.
"""
