"""Heat maps by CAM and Grad-CAM: where in an image a network sees a class."""

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerascls.errors import DataError, ModelError
from kerascls.inference.classifier import Classifier

STRONGEST = 0.7  # share of the colour where the heat is 1: the image still shows through
_built: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # Classifier: (function of images and classes, method)


# Heat maps


def heat_maps(classifier: Classifier, images: np.ndarray, classes: Sequence[int] | None = None) -> np.ndarray:
    """How strongly each place of each image speaks for a class.

    The network is traced once for each classifier; memory does not grow with the number of images, but for the answer.

    Args:
        classifier: as `load` returns it, of a run, a .keras or .h5 file, or a folder of architecture and weights.
        images: uint8 array `(n, *image_shape)` in [0, 255].
        classes: n ids in [0, num_classes); None for each image's most probable class.

    Returns:
        float32 array `(n, height, width)` in [0, 1]. Each map's maximum is 1, or it is 0 everywhere, where no place
        speaks for the class.

    Raises:
        ModelError: the model keeps no Keras layers, or none of them gives a feature map.
        DataError: images or classes are of another shape, type or range.

    >>> classifier = kerascls.load("saved_models/released/mnist_cnn")
    >>> kerascls.heat_maps(classifier, np.zeros((2, 28, 28, 1), np.uint8)).shape
    (2, 28, 28)
    """
    from kerascls.data.batches import scoring_batch_size

    compute, _ = _maps_of(classifier)
    height, width, _ = classifier.image_shape
    images = classifier.pixels(images)
    ids = np.full(len(images), -1) if classes is None else np.asarray(classes)
    if classes is not None and len(images):  # an empty list has no whole numbers
        count = len(classifier.class_names)
        if ids.shape != (len(images),) or ids.dtype.kind not in "iu" or not np.all((0 <= ids) & (ids < count)):
            raise DataError(
                f"Classes must be {len(images)} whole numbers from 0 to {count - 1}. Received: {str(classes):.200}"
            )
    out = np.empty((len(images), height, width), np.float32)
    size = scoring_batch_size(classifier.image_shape)
    for at in range(0, len(images), size):
        out[at : at + size] = compute(images[at : at + size], ids[at : at + size].astype(np.int32))
    return out


def method(classifier: Classifier) -> str:
    """ "CAM" or "Grad-CAM": what `heat_maps` does with this classifier. Raises ModelError as it does."""
    return _maps_of(classifier)[1]


def _maps_of(classifier: Classifier) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]:
    """The compiled function of uint8 images and int32 classes (-1: the predicted one) to maps, and its method."""
    if classifier not in _built:
        if classifier.keras_model is None:
            raise ModelError(
                f"It is {classifier.kind}, which keeps no Keras layers to explain. Name its run or a .keras file."
            )
        _built[classifier] = _build(classifier.keras_model, classifier.image_shape)
    return _built[classifier]


def _build(model: Any, image_shape: tuple[int, int, int]) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]:
    import tensorflow as tf

    methods = []

    def maps(images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(images, tf.float32)
        with tf.GradientTape() as tape:
            steps, outputs = _trace(model, pixels, tape)
            at = _last_map(model, steps)
            features = steps[at].output
            logits = _logits(steps, outputs)
            classes = tf.where(classes < 0, tf.argmax(outputs, 1, tf.int32), classes)
            score = tf.reduce_sum(tf.gather(logits, classes, batch_dims=1))
        kernel = _only_kernel(steps[at + 1 :])
        if kernel is not None:
            places = (1, 1) if kernel.shape[0] == features.shape[-1] else features.shape[1:3]
            weights = tf.reshape(tf.gather(tf.transpose(kernel), classes), (-1, *places, features.shape[-1]))
        else:
            gradient = tape.gradient(score, features, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            weights = tf.reduce_mean(tf.cast(gradient, tf.float32), (1, 2), keepdims=True)
        methods.append("Grad-CAM" if kernel is None else "CAM")
        heat = tf.nn.relu(tf.reduce_sum(tf.cast(features, tf.float32) * tf.cast(weights, tf.float32), -1))
        over = zip(image_shape[:2], features.shape[1:3], _places(steps[: at + 1], pixels), strict=True)
        rows, columns = (_interpolation(*axis) for axis in over)
        heat = tf.einsum("yi,nij,xj->nyx", rows, heat, columns)
        return tf.math.divide_no_nan(heat, tf.reduce_max(heat, (1, 2), keepdims=True))

    signature = [tf.TensorSpec((None, *image_shape), tf.uint8), tf.TensorSpec((None,), tf.int32)]
    compiled = tf.function(maps, input_signature=signature, autograph=False).get_concrete_function()
    return lambda images, classes: compiled(tf.constant(images), tf.constant(classes)).numpy(), methods[0]


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operation of a network: what it was given (its first argument), and the tensor that it made of it."""

    operation: Any
    input: Any
    output: Any


def _trace(model: Any, images: Any, tape: Any) -> tuple[list[_Step], Any]:
    """Runs a functional or Sequential model in inference, and those nested in it as if they were not.

    Keras' symbolic graph ends at a nested model, and a second graph through it would leave marks on its layers. Here
    each operation is called as the model itself would, and what it makes is noted. What returns its input, as Dropout
    does, leaves no step.

    Returns:
        The steps in their order, every four-dimensional tensor watched by `tape`, and the model's output.
    """
    import keras

    steps = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        graph = _graph(operation)
        if isinstance(graph, keras.Function) and args:
            return run(graph, args[0])
        if getattr(operation, "_call_has_training_arg", False):
            kwargs["training"] = False
        output = operation(*args, **kwargs)
        given = args[0] if args else None
        if hasattr(output, "dtype") and output is not given:
            if _is_spatial(output):
                tape.watch(output)
            steps.append(_Step(operation, given, output))
        return output

    def run(graph: Any, inputs: Any) -> Any:
        outputs = graph._run_through_graph(graph._standardize_inputs(inputs), call_fn=call)
        return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs

    return steps, run(_graph(model), images)


def _graph(model: Any) -> Any:
    """What has the graph of a model: itself, but for a Sequential."""
    return getattr(model, "_functional", None) or model


def _is_spatial(tensor: Any) -> bool:
    size = tuple(tensor.shape[1:3])
    return len(tensor.shape) == 4 and tensor.dtype.is_floating and None not in size and size != (1, 1)


def _last_map(model: Any, steps: list[_Step]) -> int:
    """The position of the last step behind a convolution whose output has more places than one."""
    import keras

    kinds = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose")
    convolutions = tuple(getattr(keras.layers, kind) for kind in kinds)
    first = next((i for i, step in enumerate(steps) if isinstance(step.operation, convolutions)), len(steps))
    found = [i for i in range(first, len(steps)) if _is_spatial(steps[i].output)]
    if not found:
        raise ModelError(
            f"Model {model.name} cannot be explained: it has no layer, from its first 2D convolution on, whose output "
            "is a map (batch, height, width, channels) of more than one place."
        )
    return found[-1]


def _places(steps: list[_Step], pixels: Any) -> list[tuple[float, float]]:
    """(distance, first) of rows and of columns of the last step's output: place i is over pixel distance * i + first.

    Where a step takes several maps, as a sum does, the first of them is followed. What does not come from the pixels by
    maps alone is taken to be stretched over them.
    """
    lies = {id(pixels): [(1.0, 0.0)] * 2}
    for step in steps:
        inputs = step.input if isinstance(step.input, list | tuple) else [step.input]
        given = next((each for each in inputs if id(each) in lies), None)
        operation = step.operation if given is not None else None
        given = pixels if given is None else given
        if _is_spatial(step.output):
            moves = _moves(operation, given.shape[1:3], step.output.shape[1:3])
            both = zip(lies[id(given)], moves, strict=True)
            lies[id(step.output)] = [(a * distance, first + a * shift) for (a, first), (distance, shift) in both]
    return lies[id(steps[-1].output)]


def _moves(operation: Any, given: Sequence[int], made: Sequence[int]) -> list[tuple[float, float]]:
    """(distance, first) as in `_places`, of what an operation makes, in places of what it is given.

    Args:
        given, made: height and width of either.
    """
    from keras import layers

    if isinstance(operation, layers.ZeroPadding2D):
        return [(1, -before) for before, _ in operation.padding]
    if isinstance(operation, layers.Cropping2D) and operation.data_format == "channels_last":
        return [(1, before) for before, _ in operation.cropping]
    pools = isinstance(operation, layers.MaxPooling2D | layers.AveragePooling2D)
    if not pools and not isinstance(operation, layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D):
        return [(n / m, (n / m - 1) / 2) for n, m in zip(given, made, strict=True)]  # stretched, or nothing moves
    sizes = operation.pool_size if pools else operation.kernel_size
    dilations = (1, 1) if pools else operation.dilation_rate
    moves = []
    for n, m, size, dilation, stride in zip(given, made, sizes, dilations, operation.strides, strict=True):
        last = (size - 1) * dilation
        padding = max((m - 1) * stride + last + 1 - n, 0) if operation.padding == "same" else 0
        moves.append((stride, last / 2 - padding // 2))
    return moves


def _interpolation(pixels: int, places: int, lies: tuple[float, float]) -> np.ndarray:
    """Each place's share of each pixel, float32 `(pixels, places)`: linear between two places.

    An outermost place has half a distance around it for itself, as if the map were stretched; beyond, it fades.
    """
    distance, first = lies
    at = (np.arange(pixels) - first) / distance
    beyond = at - np.clip(at, 0, places - 1)
    at -= np.clip(beyond, -0.5, 0.5)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(places))).astype(np.float32)


def _logits(steps: list[_Step], output: Any) -> Any:
    """What the activation that ends a network is taken of; the output itself where no activation is known."""
    import keras

    made = next((step for step in reversed(steps) if step.output is output), None)
    operation = made and made.operation
    if isinstance(operation, keras.layers.Dense):
        return keras.ops.matmul(made.input, operation.kernel)  # a bias moves no gradient
    if isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear:
        return _logits(steps, made.input)  # it only casts, as mixed precision has it
    if isinstance(operation, keras.layers.Activation | keras.layers.Softmax):
        return made.input
    return output


def _only_kernel(steps: list[_Step]) -> Any:
    """The kernel of the one Dense layer by which a network goes on from its last map, pooled or flattened; or None.

    Each of these operations takes one tensor, so nothing else can come in.
    """
    import keras

    layers = keras.layers
    rest = [step.operation for step in steps if not isinstance(step.operation, layers.Dropout)]
    if rest and isinstance(rest[-1], layers.Activation | layers.Softmax):
        rest.pop()
    if rest and isinstance(rest[0], layers.GlobalAveragePooling2D):
        rest = [each for each in rest if not isinstance(each, layers.Flatten)]  # behind it, it changes nothing
    if len(rest) != 2 or not isinstance(rest[0], layers.GlobalAveragePooling2D | layers.Flatten):
        return None
    return keras.ops.convert_to_tensor(rest[1].kernel) if isinstance(rest[1], layers.Dense) else None


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image in gray, coloured where it is hot.

    Args:
        image: uint8 array `(height, width, 1 or 3)`.
        heat: float array `(height, width)` in [0, 1], as `heat_maps` has them.

    Returns:
        uint8 array `(height, width, 3)`. Matplotlib's perceptually uniform "inferno" has a share of STRONGEST * heat,
        so a heat of 0 leaves the gray image.

    Raises:
        DataError: image and heat do not fit each other.

    >>> kerascls.overlay(np.zeros((28, 28, 1), np.uint8), np.ones((28, 28), np.float32)).shape
    (28, 28, 3)
    """
    import matplotlib

    if image.ndim != 3 or image.shape[-1] not in (1, 3) or image.dtype != np.uint8 or image.shape[:2] != heat.shape:
        raise DataError(
            "An overlay takes a uint8 image (height, width, 1 or 3) and its heat (height, width). "
            f"Received: {image.dtype} {image.shape} and {heat.shape}"
        )
    gray = image.astype(np.int64)
    if image.shape[-1] == 3:
        gray = (gray @ [299, 587, 114] + 500)[..., None] // 1000  # as `images` makes RGB gray
    share = STRONGEST * heat[..., None]
    colour = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    return np.round((1 - share) * gray + share * colour).astype(np.uint8)
