"""Export: the checkpoint as one ONNX graph, written node by node, then compared with the checkpoint.

The graph is built here and not traced by torch: torch's exporters changed between the versions the images use,
newer ones cannot write opset 17, and a hand-written graph says which operations stay in float32.

    graph             nodes and weights to a file, with external data when it is large
    inputs            the names of the graph's inputs and output
    attention         what the families' layers share
    activation        the functions between them
    bert, llama ...   the layers of a family, called by encoder.families
    pooling           mean, last token, first token
    head              what follows the pooling: Dense modules, Matryoshka dimensions, length 1
    rounded           a graph in float16 or bfloat16 as a CPU computes it
    parity            the file under ONNX Runtime against the checkpoint
    stage             the stage's work, from settings to result
"""
