"""TensorRT: finding it, and running an engine that was built on this device."""
