"""Proves that the deployed endpoint serves the evaluated artefact with the evaluated quality.

client     HTTP to the endpoint: readiness, metadata, embeddings, retries
answers    pure: a response to vectors, and which of them are fit to use
vectors    all texts of a set, at the pace that the server keeps
negatives  what the endpoint is asked wrongly on purpose: the other role, no prefix, other dimensions
stage      the stage's work; metrics come from evaluate's own modules
"""
