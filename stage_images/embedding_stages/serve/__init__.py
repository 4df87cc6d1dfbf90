"""The embedding endpoint: OpenAI's POST /v1/embeddings with NIM's input_type and truncate.

settings, requests   pure: environment and request bodies to values
vector_space         whether a client expects the vectors that it would get
texts                texts to token ids
model                what the server asks of a model; onnx_model and checkpoint_model are the two kinds
open_model           which of the two kinds a folder holds
batching             which rows of which requests go through the model together
app, server          HTTP, and the life of the process
check                the init container that lets only the evaluated artefact start
"""
