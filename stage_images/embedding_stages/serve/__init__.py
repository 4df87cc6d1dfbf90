"""The embedding endpoint: OpenAI's POST /v1/embeddings with NIM's input_type and truncate, on ONNX Runtime.

settings, requests   pure: environment and request bodies to values
texts, model         texts to token ids to vectors
batching             which rows of which requests go through the model together
app, server          HTTP, and the life of the process
check                the init container that lets only the evaluated artefact start
"""
