"""Public operators: CPU and CUDA, ``torch.compile``-safe, uint8 in."""
