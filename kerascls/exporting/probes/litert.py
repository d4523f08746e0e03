"""Opens a .tflite by ai-edge-litert, or by TensorFlow's copy of it where that is not installed."""

import os
import sys
import zipfile

HIDDEN = ()


def opened(path):
    try:
        from ai_edge_litert.interpreter import Interpreter

        sys.modules["tensorflow"] = sys.modules["keras"] = None
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    with zipfile.ZipFile(path) as archive:
        card = archive.read("kerascls.json").decode()
    model = Interpreter(path, num_threads=int(os.environ["KERASCLS_CORES"]))
    (entrance,), (exit_,) = model.get_input_details(), model.get_output_details()

    def by_pixels(images):
        model.resize_tensor_input(entrance["index"], images.shape)
        model.allocate_tensors()
        model.set_tensor(entrance["index"], images.astype(entrance["dtype"]))
        model.invoke()
        return model.get_tensor(exit_["index"])

    return card, by_pixels, None
