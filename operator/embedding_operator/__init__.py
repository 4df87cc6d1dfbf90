"""The operator behind `EmbeddingFineTune`. Read `reconcile.py` first."""
