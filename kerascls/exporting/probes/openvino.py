"""Opens a folder of model.xml and model.bin by OpenVINO, without TensorFlow."""

import os

import numpy as np

HIDDEN = ("tensorflow", "keras")


def opened(path):
    import openvino

    model = openvino.Core().read_model(os.path.join(path, "model.xml"))
    card = model.get_rt_info(["kerascls"]).astype(str)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return card, lambda images: compiled({"images": images.astype(np.float32)})["probabilities"].copy(), None
