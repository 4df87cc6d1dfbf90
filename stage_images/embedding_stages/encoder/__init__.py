"""The text encoder that all stages share: its description, its tokens, and the torch module.

`description`, `safetensors_check` and `hardware` need the standard library alone; `tokens` needs `tokenizers`
and numpy; only `model` and `backbone` import torch.
"""
