"""Triton programs of the packed model. Import only where there is a CUDA device (or Triton's interpreter)."""
