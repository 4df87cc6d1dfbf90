"""The text encoder that all stages share: its description, its tokens, and the torch module.

    configuration     config.json and the files beside it
    families          what differs between BERT, Llama and the next: one module a family
    pooling           from the states of tokens to one vector
    dense, dense_head what that vector goes through in some models
    description       what a model folder holds, and whether it can be used
    tokens            texts to token ids
    query_map         what becomes of queries' vectors alone, where only their side was trained
    publish, card     a checkpoint's folder as other libraries read it
    protocol          what every encoder promises
    model, backbone   the encoder over padded batches
    packed            the encoder over packs
    load              which of the two runs a model here
    fitting           batches that shrink until they fit the accelerator

All but `dense_head` and the last four, `safetensors_check` and `hardware` among them, leave torch alone; `description`
and what it imports need the standard library alone, `tokens` and `protocol` also `tokenizers` and numpy, `query_map`
also numpy.
"""
