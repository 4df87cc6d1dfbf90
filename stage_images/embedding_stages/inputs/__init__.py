"""Freezes and hashes what a run starts from, before anything is spent.

Documents, model files and labelled sets are untrusted: only regular files below the mounted folder are read,
with caps on number, size and depth; what is not text is skipped and counted. Standard library alone;
huggingface_hub is imported only to download.
"""
