"""The work of the pipeline's stages: one sub-package a stage, nothing heavy imported here."""
