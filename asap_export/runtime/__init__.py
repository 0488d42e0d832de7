"""Running a bundle: ONNX Runtime and TensorRT sessions, prompts, the generate loop and its KV cache."""
