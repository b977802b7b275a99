"""Files into other files: `quantize` turns the weights of a GGUF model into smaller types."""
