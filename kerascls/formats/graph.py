"""A model as one frozen graph, its weights as constants."""

from typing import Any


def frozen(model: Any) -> Any:
    """A model as one graph of float32 images whose weights are constants: its steps are folded and fused, once."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec(model.input_shape, tf.float32)],
        autograph=False,
    )
    return convert_variables_to_constants_v2(function.get_concrete_function())
