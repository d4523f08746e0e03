"""The configuration of a Keras model: which classes it names, and how large what they build would be.

Keras makes of a configuration whatever it names: layers with Python code in them, layers that load other models or read
files, functions and classes of other packages. What follows is all that a saved image classifier may be made of.
"""

import collections
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError
from kerascls.formats.scan.containers import Contents, read

LAYERS = set(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D
    BatchNormalization Bidirectional CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D
    Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D
    Cropping2D Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding
    Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D
    GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention
    Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPool1D MaxPool2D MaxPool3D MaxPooling1D
    MaxPooling2D MaxPooling3D Maximum Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
    RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
    RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SeparableConvolution1D
    SeparableConvolution2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D
    SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)
MODELS = {"Functional", "Sequential", "Model"}
INITIALIZERS = set(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    """.split()
)
REGULARIZERS = {"L1", "L2", "L1L2", "OrthogonalRegularizer"}
CONSTRAINTS = {"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"}
POLICIES = {"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy"}
ACTIVATIONS = set(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold
    """.split()
)
# Operations on tensors, as `x + 3` and `keras.ops.flip` leave them in a model's graph. None calls a function.
ARRAY_OPS = set(
    """
    Absolute Abs Add All Amax Amin Any Argmax Argmin Average BroadcastTo Ceil Clip Concatenate Copy Cos Cumsum Divide
    DivideNoNan Dot Einsum Equal Exp ExpandDims Expm1 Flip Floor FloorDivide GetItem Greater GreaterEqual Less LessEqual
    Log Log10 Log1p Log2 LogicalAnd LogicalNot LogicalOr Matmul Max Maximum Mean Median Min Minimum Mod Moveaxis
    Multiply Negative NotEqual OnesLike Pad Power Prod Ravel Reciprocal Repeat Reshape Roll Rot90 Round Sign Sin Split
    Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take Tanh Tensordot Tile Transpose TrueDivide Var Where
    ZerosLike
    """.split()
)
NN_OPS = set(
    """
    AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm Celu DepthToSpace Elu Gelu Glu HardSigmoid HardSilu
    HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments Normalize RMSNorm Relu Relu6 Selu Sigmoid Silu
    Softmax Softplus Softsign SpaceToDepth Squareplus TanhShrink Threshold
    """.split()
)
IMAGE_OPS = {"CropImages", "PadImages", "Resize", "RGBToGrayscale", "RGBToHSV", "HSVToRGB"}
CORE_OPS = {"Cast", "SaturateCast", "Slice", "StopGradient", "Unstack"}
MATH_OPS = {"Erf", "Logsumexp", "Rsqrt"}
# What a nested model was compiled with.
OPTIMIZERS = set(
    """
    Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon Nadam RMSprop SGD
    """.split()
)
SCHEDULES = set(
    """
    CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay PolynomialDecay
    """.split()
)
LOSSES = set(
    """
    BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalHinge
    CosineSimilarity Dice Hinge Huber KLDivergence LogCosh MeanAbsoluteError MeanSquaredError Poisson
    SparseCategoricalCrossentropy SquaredHinge Tversky
    """.split()
)
METRICS = set(
    """
    AUC Accuracy BinaryAccuracy BinaryCrossentropy CategoricalAccuracy CategoricalCrossentropy F1Score FBetaScore
    FalseNegatives FalsePositives KLDivergence Mean MeanAbsoluteError MeanSquaredError Precision Recall
    SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy TopKCategoricalAccuracy
    TrueNegatives TruePositives
    """.split()
)

# Where Keras looks each of them up. A file of another place names somebody else's class of the same name.
PLACES: dict[str, set[str]] = {
    "keras.layers": LAYERS,
    "keras.models": MODELS,
    "keras.initializers": INITIALIZERS,
    "keras.regularizers": REGULARIZERS,
    "keras.constraints": CONSTRAINTS,
    "keras.dtype_policies": POLICIES,
    "keras.optimizers": OPTIMIZERS,
    "keras.optimizers.schedules": SCHEDULES,
    "keras.losses": LOSSES,
    "keras.metrics": METRICS,
    "keras": MODELS | {"DTypePolicy", "FloatDTypePolicy"},
    "keras.src.models.functional": MODELS,
    "keras.src.models.sequential": MODELS,
    "keras.src.models.model": MODELS,
    "keras.src.applications.convnext": {"LayerScale"},
    "keras.src.applications.inception_resnet_v2": {"CustomScaleLayer"},
    "keras.src.ops.numpy": ARRAY_OPS,
    "keras.src.ops.nn": NN_OPS,
    "keras.src.ops.image": IMAGE_OPS,
    "keras.src.ops.core": CORE_OPS,
    "keras.src.ops.math": MATH_OPS,
}
# Files of Keras 2 and .h5 files say no place: Keras looks among its own layers, initializers and so on.
ANYWHERE = LAYERS | MODELS | INITIALIZERS | REGULARIZERS | CONSTRAINTS | POLICIES
# Files of Keras 2 alone have these: calls of functions in a graph, `groups` of layers that cannot have any, and the
# state of random layers.
KERAS_2_CALLS = {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"}
UNGROUPED = set(
    """
    Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D
    """.split()
)
KERAS_2_RANDOM = set(
    """
    RandomBrightness RandomContrast RandomCrop RandomFlip RandomHeight RandomRotation RandomTranslation RandomWidth
    RandomZoom
    """.split()
)
DATA = {
    "__keras_tensor__",
    "__tensor__",
    "__numpy__",
    "__bytes__",
    "__slice__",
    "__ellipsis__",
    "__tuple__",
    "TensorShape",
}
_TYPE = re.compile(
    r"(bfloat16|float(16|32|64)|u?int(8|16|32|64)|bool|string)"
)  # NumPy's "V9999999999" is large by itself

MOST_VALUES = 1 << 28  # numbers in a tensor of one image: 1 GB in float32
MOST_SIDE = 1 << 16  # of a kernel, a window, a padding, an image
MOST_DEPTH = 200  # of lists and objects in each other
# Each makes at least so many weights, which the file must hold.
_COUNTS = {
    "units",
    "filters",
    "input_dim",
    "output_dim",
    "num_heads",
    "key_dim",
    "value_dim",
    "head_dim",
    "depth_multiplier",
}
_SIDES = {"kernel_size", "pool_size", "strides", "dilation_rate", "padding", "cropping", "size", "output_size", "n"} | {
    "height",
    "width",
    "target_height",
    "target_width",
}


def read_checked(path: Path) -> Contents:
    """What a .keras, a .h5 or a folder of architecture and weights holds, all of it found harmless.

    Raises:
        ModelError: it is not.
    """
    contents = read(path)
    check_config(path, contents)
    return contents


def check_config(path: Path, contents: Contents) -> None:
    """Raises ModelError where the configuration of a Keras file holds more than layers of Keras' own, within reason.

    It is the whole of what Keras would make something of, nested models, wrappers and calls in a graph included.
    """
    config, old = contents.config, keras_2(contents)
    if old and path.suffix == ".keras":
        raise written_by_keras_2(path, old, "its .keras files have another form")
    kind = config.get("class_name") if isinstance(config, dict) else type(config).__name__
    if not isinstance(kind, str) or kind not in MODELS:
        raise _refused(path, f"its configuration is of {str(kind)[:100]!r}, not of a Keras model")
    for key, value, where, depth in _everything(config):
        at = f"at {'/'.join(where)[-200:]}"
        if depth > MOST_DEPTH:
            raise _refused(path, f"its configuration is nested more than {MOST_DEPTH} deep")
        if isinstance(value, dict) and "class_name" in value:
            if old and (why := _of_keras_2(value)):
                raise written_by_keras_2(path, old, f"{why}, at {'/'.join(where)[-100:]}")
            if fault := _foreign(value):
                raise _refused(path, f"{fault}, {at}, is none of Keras' own layers that hold no code and open no files")
        elif _number(value) and abs(value) >= 2**63:
            raise _refused(path, f"{key} is {value}, {at}")
        if isinstance(key, str) and (fault := _oversized(key, value, contents.values)):
            raise _refused(path, f"{key} {fault}, {at}")


def keras_2(contents: Contents) -> str | None:
    """The version of Keras that wrote a file, where that was before Keras 3."""
    version = contents.written_with.get("keras", "")
    return version if version.startswith(("1.", "2.")) else None


def written_by_keras_2(path: Path, version: str, why: str) -> ModelError:
    return ModelError(
        f"{path} was written by Keras {version}, and Keras 3 cannot read it ({why[:160]}). Load it there, or with "
        "tf-keras (TF_USE_LEGACY_KERAS=1), save its weights, build the network anew in Keras 3 and load them into it."
    )


def _of_keras_2(config: dict[str, Any]) -> str | None:
    """What an object of a Keras 2 file has that no object of Keras 3 has, in a few words; None where nothing is."""
    name, place, inner = config["class_name"], config.get("module"), config.get("config")
    if not isinstance(name, str):
        return None
    if name in KERAS_2_CALLS or (isinstance(place, str) and place.startswith(("keras.engine", "keras.src.engine"))):
        return f"it has {place + '.' if isinstance(place, str) else ''}{name}"
    if isinstance(inner, dict) and "groups" in inner and name in UNGROUPED:
        return f"{name} has groups"
    return f"{name} keeps another state" if name in KERAS_2_RANDOM else None


def layer_classes(config: Any) -> dict[str, int]:
    """How many of each class of layer a model has, those of nested models and wrappers among them, in order."""
    return dict(
        collections.Counter(
            str(value["class_name"])[:100]
            for key, value, _, _ in _everything(config if isinstance(config, dict) else {})
            if key in ("layers", "layer", "cell", "cells") and isinstance(value, dict) and "class_name" in value
        )
    )


def image_shape(config: Any) -> list[int | None] | None:
    """The shape of an image that the model's first input states, without the batch; None where it states none."""
    for key, value, _, _ in _everything(config if isinstance(config, dict) else {}):
        if key in ("batch_shape", "batch_input_shape") and isinstance(value, list):
            return value[1:]
    return None


def _everything(config: dict[str, Any]) -> Iterator[tuple[str | None, Any, tuple[str, ...], int]]:
    """Every (key, value, names of the layers around it, depth) of a configuration, in order.

    What a model was compiled with is left out, since models are loaded uncompiled; not so a nested model's.
    """
    top = {key: value for key, value in config.items() if key != "compile_config"}
    waiting: list[tuple[str | None, Any, tuple[str, ...], int]] = [(None, top, (), 0)]
    while waiting:
        key, value, where, depth = waiting.pop()
        if isinstance(value, dict) and isinstance(value.get("class_name"), str):
            inner = value.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            where = (*where, str(name or value["class_name"])[:100])
        yield key, value, where, depth
        if isinstance(value, dict):
            waiting += [(name, item, where, depth + 1) for name, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(key, item, where, depth + 1) for item in reversed(value)]


def _foreign(config: dict[str, Any]) -> str | None:
    """The class that an object of a configuration names, if it is not one that is loaded."""
    name, place, registered = config["class_name"], config.get("module"), config.get("registered_name")
    shown = f"{place}.{name}" if place else str(name)
    if not isinstance(name, str) or not (place is None or isinstance(place, str)):
        return shown[:100]
    if name == "function":  # an activation that was given as a function
        shown = f"the function {config.get('config')}"
        known = config.get("config") in ACTIVATIONS if isinstance(config.get("config"), str) else False
        return None if known and place in ("builtins", "keras.activations") else shown[:100]
    if registered not in (None, name):
        return f"{registered} ({shown})"[:100]
    if name in DATA:
        kind = config["config"].get("dtype") if isinstance(config.get("config"), dict) else None
        known = kind is None or (isinstance(kind, str) and _TYPE.fullmatch(kind))
        return None if place is None and known else f"{shown} of {kind}"[:100]
    return None if name in (ANYWHERE if place is None else PLACES.get(place, ())) else shown[:100]


def _oversized(key: str, value: Any, weights: int) -> str | None:
    """What is wrong with the size that `key` states, if it states one."""
    if key == "shape" or key.endswith("_shape"):
        sides = [side for side in value if _number(side)] if isinstance(value, list) else []
        if math.prod(abs(side) for side in sides if side) > MOST_VALUES:
            return f"is {sides}, more than {MOST_VALUES:,} numbers"
    elif key in _COUNTS and _number(value) and value > weights:
        return f"is {value}, and its weights are {weights:,} numbers"
    elif key in _SIDES and _number(value) and abs(value) > MOST_SIDE:
        return f"is {value}, more than {MOST_SIDE:,}"
    elif key == "stateful" and value is True:
        return "is true, which keeps one batch's state for the next"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is refused before anything in it runs: {why}.")
