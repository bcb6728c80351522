"""Engines: built from a bundle's graph by TensorRT, on the device that runs them; nothing here needs torch or onnx."""
