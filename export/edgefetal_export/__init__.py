"""From trained models to a bundle: teachers, training, ONNX, quantisation, packaging. Needs the `build` extra."""
