"""Opens a .keras or .h5 file, or a folder of architecture and weights, by Keras."""

import os
import zipfile

HIDDEN = ()


def opened(path):
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    model, card = _read(path)
    forward = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False), autograph=False)
    return card, lambda images: forward(tf.constant(images)).numpy(), None


def _read(path):
    import keras

    if os.path.isdir(path):
        with open(os.path.join(path, "architecture.json")) as file:
            model = keras.models.model_from_json(file.read())
        model.load_weights(os.path.join(path, "model.weights.h5"))
        with open(os.path.join(path, "kerascls.json"), encoding="utf-8") as file:
            return model, file.read()
    model = keras.saving.load_model(path, compile=False)
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            return model, archive.read("kerascls.json").decode()
    import h5py

    with h5py.File(path) as file:
        return model, file.attrs["kerascls"]
