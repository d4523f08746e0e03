"""Opens a SavedModel by TensorFlow alone, in both its signatures."""

import json
import os

HIDDEN = ("keras",)


def opened(path):
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    folder = os.path.join(path, "1")
    model = tf.saved_model.load(folder)
    with open(os.path.join(folder, "assets", "kerascls.json"), encoding="utf-8") as file:
        card = file.read()
    names = [name.decode() for name in model.class_names().numpy()]
    assert names == json.loads(card)["class_names"], "its class names are not those of its card"

    def checked(answer):
        ids = answer["probabilities"].numpy().argmax(1)
        labels = [label.decode() for label in answer["label"].numpy()]
        assert labels == [names[i] for i in ids], "a label is not the best"
        return answer["probabilities"].numpy()

    def by_pixels(images):
        return checked(model.signatures["pixels"](images=tf.constant(images)))

    def by_bytes(encoded):
        return checked(model.signatures["serving_default"](image_bytes=tf.constant(encoded)))

    return card, by_pixels, by_bytes
