"""The demo: a network that ships (digits.onnx.xz, digits.edge), held-out digits, the trial that measures it, the script that trained it."""
