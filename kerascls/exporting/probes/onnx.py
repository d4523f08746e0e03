"""Opens a .onnx by ONNX Runtime, without TensorFlow."""

import numpy as np

HIDDEN = ("tensorflow", "keras")


def opened(path):
    import onnxruntime

    model = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    card = model.get_modelmeta().custom_metadata_map["kerascls"]
    return card, lambda images: model.run(["probabilities"], {"images": images.astype(np.float32)})[0], None
