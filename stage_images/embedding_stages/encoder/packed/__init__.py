"""Texts of different lengths laid end to end, so that no product is spent on padding.

`packs` decides what lies together (numpy), `kernels` are the Triton programs, `reference` says in plain torch what
they compute, `ops` chooses between the two, `llama` is the model over them.
"""
