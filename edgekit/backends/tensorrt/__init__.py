"""TensorRT: rules of what it builds, and what it builds with."""
