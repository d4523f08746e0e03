"""Private names of Keras, TensorFlow and TFDS that the package leans on, each with the behaviour that it is needed for.

A release that renames one of them would otherwise change results or drop a guarantee without an error. So each test
says what the package needs of a name; the first one finds a name that has no test.
"""

import ast
import functools
import importlib
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerascls
from kerascls.system.process import put_back, same_draws

PACKAGE = Path(kerascls.__file__).parent
TESTED = {
    "_all_reduce_sum_gradients",
    "_call_has_training_arg",
    "_distribute_strategy",
    "_flatten_layers",
    "_functional",
    "_get_ops_details",
    "_inbound_nodes",
    "_keras_history",
    "_maybe_symbolic_build",
    "_model_variables_moving_average",
    "_moments",
    "_outbound_nodes",
    "_rng",
    "_run_through_graph",
    "_seed",
    "_seed_generators",
    "_standardize_inputs",
    "_symbolic_build",
    "_trainable_variables",
    "keras.src.backend.common.global_state",
    "keras.src.backend.config.keras_home",
    "keras.src.utils.file_utils",
    "tensorflow.python.eager.context",
    "tensorflow.python.framework.config",
    "tensorflow.python.framework.config.is_op_determinism_enabled",
    "tensorflow.python.framework.convert_to_constants.convert_variables_to_constants_v2",
}
NOT_THEIRS = {"_exit"}  # os._exit is public


def names_of_our_own(trees):
    """What the package itself calls so."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                yield node.attr


def private_names(trees):
    """Private attributes, whether written or asked for by `getattr`, and what is imported from private modules."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        name = None
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("keras.src", "tensorflow.python")):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if name and name.startswith("_") and not name.startswith("__"):
            yield name


def test_every_private_name_in_use_is_tested_here():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    # Methods and attributes of Keras that the package sets on its own subclasses look like its own names.
    overridden = {"_maybe_symbolic_build", "_moments", "_all_reduce_sum_gradients"}
    foreign = set(private_names(trees)) - (set(names_of_our_own(trees)) - overridden) - NOT_THEIRS
    assert (foreign - TESTED, TESTED - foreign) == (set(), set())


@pytest.fixture(scope="module")
def nested():
    """A model with a nested one, which has dropout and batch normalisation behind a convolution."""
    inner = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(2, 3, name="convolution"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, name="dropout"),
        ],
        name="inner",
    )
    images = keras.Input((8, 8, 1))
    outputs = keras.layers.GlobalAveragePooling2D(name="pool")(inner(images))
    return keras.Model(images, keras.layers.Softmax(name="last")(outputs))


def test_flatten_layers_goes_into_nested_models(nested):
    """Batch normalisation, seeds and foreign layers are looked for in all of a model (`_flatten_layers`)."""
    names = {layer.name for layer in nested._flatten_layers()}
    assert {"inner", "convolution", "norm", "dropout", "pool", "last"} <= names


def test_batch_normalisation_takes_its_moments_by_one_method():
    """`_moments(inputs, mask)` is replaced by sums that replicas share (`models.sum_moments_evenly`)."""
    layer = keras.layers.BatchNormalization(momentum=0.5)
    layer.build((None, 2))
    layer._moments = lambda inputs, mask=None: (tf.constant([3.0, 5.0]), tf.constant([4.0, 9.0]))
    made = layer(np.array([[5.0, 8.0]], "float32"), training=True)
    # (5 - 3) / sqrt(4 + 0.001) and (8 - 5) / sqrt(9 + 0.001)
    assert np.allclose(made, [[0.99988, 0.99994]], atol=1e-5)
    assert np.allclose(layer.moving_mean, [1.5, 2.5]) and np.allclose(layer.moving_variance, [2.5, 5.0])


def test_an_optimiser_adds_up_the_replicas_gradients_by_one_method():
    """Without a strategy it is left out (`steps.TrainingModel.compile`), since TensorFlow keeps its graph for ever."""
    optimizer = keras.optimizers.SGD(1.0)
    asked = []
    optimizer._all_reduce_sum_gradients = lambda pairs: asked.append(pairs) or list(pairs)
    weight = keras.Variable([3.0])
    optimizer.apply_gradients([(tf.constant([1.0]), weight)])
    assert len(asked) == 1 and np.allclose(weight, [2.0])


def test_dropout_keeps_its_seed_generator_where_it_is_looked_for(nested):
    """Its state is set at every epoch's beginning, so that resuming draws the same (`callbacks.generator_states`)."""
    (generator,) = nested.get_layer("inner").get_layer("dropout")._seed_generators
    assert isinstance(generator, keras.random.SeedGenerator)
    assert tuple(generator.state.shape) == (2,)
    generator.state.assign([7, 0])
    first = np.asarray(nested.get_layer("inner").get_layer("dropout")(np.ones((4, 64), "float32"), training=True))
    generator.state.assign([7, 0])
    again = np.asarray(nested.get_layer("inner").get_layer("dropout")(np.ones((4, 64), "float32"), training=True))
    assert np.array_equal(first, again) and 0 < (first == 0).mean() < 1


def test_the_first_metric_of_a_compiled_model_is_the_mean_of_its_loss():
    """The step writes a replica's loss into it (`steps.TrainingModel._report`)."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    model._symbolic_build(data_batch=(tf.TensorSpec((None, 2)), tf.TensorSpec((None, 2))))
    assert model.metrics[0].name == "loss" and isinstance(model.metrics[0], keras.metrics.Mean)
    assert model.optimizer.built  # its variables are made before a step is traced


def test_fit_makes_its_variables_by_the_method_that_the_step_replaces():
    """`_maybe_symbolic_build` is called by `fit` before a step is traced; without it a step is traced twice."""
    asked = []

    class Model(keras.Sequential):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            asked.append(iterator is not None or data_batch is not None)
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    model = Model([keras.layers.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    model.fit(np.zeros((4, 2)), np.eye(4, 2), verbose=0, shuffle=False)
    assert asked[0] is True


def test_fit_trains_by_the_function_that_make_train_function_sets():
    """`fit` asks for it once and gives it an iterator (`steps.TrainingModel.make_train_function`)."""
    given = []

    class Model(keras.Sequential):
        def make_train_function(self, force=False):
            self.train_function = lambda iterator: given.append(iterator) or {"loss": 1.0}

    model = Model([keras.layers.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    history = model.fit(np.zeros((4, 2)), np.eye(4, 2), batch_size=2, verbose=0, shuffle=False)
    assert len(given) == 2 and list(history.history) == ["loss"]


def test_a_model_knows_the_strategy_that_it_was_made_under():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    assert model._distribute_strategy is None
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    assert model._distribute_strategy is strategy


def test_a_subclassed_model_is_told_from_a_functional_one(nested):
    """A model must be one whose file can be read back without its code (`models.check_model`)."""

    class Subclass(keras.Model):
        pass

    assert isinstance(nested, keras.Function) and not isinstance(Subclass(), keras.Function)


def test_a_layer_says_whether_its_call_takes_training():
    """Heat maps call each layer in inference (`explain._trace`)."""
    assert keras.layers.Dropout(0.5)._call_has_training_arg is True
    assert keras.layers.Flatten()._call_has_training_arg is False


def test_a_sequential_model_runs_by_its_functional_twin(nested):
    """Heat maps run a graph with a function of their own in the place of every call (`explain._trace`)."""
    inner = nested.get_layer("inner")
    assert isinstance(inner._functional, keras.Function) and isinstance(nested, keras.Function)
    called = []

    def call(operation, *args, **kwargs):
        called.append(operation.name)
        return operation(*args, **kwargs)

    images = np.zeros((1, 8, 8, 1), "float32")
    made = nested._run_through_graph(nested._standardize_inputs(images), call_fn=call)
    assert called == ["inner", "pool", "last"]
    assert np.allclose(made[0] if isinstance(made, list) else made, nested(images))


def test_a_tensor_and_a_layer_know_their_nodes():
    """Batch normalisation is folded into a convolution that nothing else uses (`features`)."""
    images = keras.Input((8, 8, 1))
    convolution = keras.layers.Conv2D(2, 3)
    made = convolution(images)
    norm = keras.layers.BatchNormalization()
    model = keras.Model(images, norm(made))
    assert made._keras_history.operation is convolution
    assert model.outputs[0]._keras_history.operation is norm
    assert len(convolution._inbound_nodes) == len(convolution._outbound_nodes) == len(norm._inbound_nodes) == 1
    norm(made)  # a second use
    assert len(convolution._outbound_nodes) == 2
    # What a network's last layers are is read from its end, along these (`models._ends`).
    assert [node.input_tensors[0] is made for node in norm._inbound_nodes] == [True, True]
    assert convolution._inbound_nodes[made._keras_history.node_index].input_tensors[0] is images
    assert images._keras_history.operation._inbound_nodes[0].input_tensors == []


def test_an_optimiser_keeps_moving_averages_in_the_order_of_its_variables():
    """They stand in the weights' place for validation (`callbacks.Average`)."""
    weights = [keras.Variable([1.0]), keras.Variable([2.0, 4.0])]
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    optimizer.build(weights)
    optimizer.apply_gradients([(tf.constant([1.0]), weights[0]), (tf.constant([0.0, 1.0]), weights[1])])
    assert [one is two for one, two in zip(optimizer._trainable_variables, weights, strict=True)] == [True, True]
    # The average begins at the first values: 0.75 * 1 + 0.25 * 0, and so on, or at the values after the first step.
    averages = [average.numpy().tolist() for average in optimizer._model_variables_moving_average]
    assert averages == [[0.0], [2.0, 3.0]]
    optimizer.apply_gradients([(tf.constant([1.0]), weights[0]), (tf.constant([0.0, 0.0]), weights[1])])
    assert optimizer._model_variables_moving_average[0].numpy().tolist() == [-0.25]


def test_networks_of_keras_applications_fetch_their_weights_by_file_utils_get_file(monkeypatch, tmp_path):
    """It is replaced by one that looks first, and names the missing file (`models.transfer`)."""
    from keras.src.backend.config import keras_home
    from keras.src.utils import file_utils

    class Asked(Exception):
        pass

    def get_file(fname, origin, cache_subdir, file_hash=None):
        raise Asked(fname, cache_subdir)

    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(Asked) as asked:
        keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, include_top=False, weights="imagenet")
    assert asked.value.args[0].endswith(".h5") and asked.value.args[1] == "models"
    assert Path(keras_home()).name == ".keras"
    assert callable(file_utils.validate_file)


def test_the_source_of_keras_applications_names_its_networks():
    """`kerascls list` reads it, so that TensorFlow need not be imported (`catalog`)."""
    from kerascls.recipes.catalog import backbones

    here = {name for name in dir(keras.applications) if inspect.isfunction(getattr(keras.applications, name))}
    assert set(backbones()) == here and "EfficientNetV2B0" in here


def test_layers_ask_add_weight_for_every_weight(monkeypatch):
    """What a file may make a layer allocate is bounded there (`models._files`)."""
    asked = []
    original = keras.layers.Layer.add_weight

    @functools.wraps(original)
    def add_weight(layer, shape=None, *args, **kwargs):
        asked.append(tuple(shape))
        return original(layer, shape, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "add_weight", add_weight)
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4)])
    assert asked == [(3, 4), (4,)]


def test_op_determinism_is_asked_for_turned_on_and_turned_off():
    """The public API only turns it on (`process.deterministic_ops`, `devices.choose`)."""
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    seed, context.context()._seed = context.context()._seed, None  # whatever other tests have set
    try:
        config.enable_op_determinism()
        assert config.is_op_determinism_enabled() is True
        with pytest.raises(RuntimeError, match="determinism is enabled"):
            tf.random.uniform((1,))
        config.disable_op_determinism()
        assert config.is_op_determinism_enabled() is False
        assert tf.random.uniform((1,)).shape == (1,)
    finally:
        (config.enable_op_determinism if before else config.disable_op_determinism)()
        context.context()._seed = seed


def test_tensorflows_context_keeps_the_seed_and_what_was_drawn_by_it():
    """Both are put back when a training or a prediction ends (`process.same_draws`)."""
    from tensorflow.python.eager import context

    with same_draws():
        tf.random.set_seed(5)
        tf.random.uniform((1,))
        state = context.context()
        assert state._seed == 5
        numbers = state._rng.getstate()  # which gives each operation its own seed
        following = [tf.random.uniform((4,)).numpy().tolist() for _ in range(2)]
        tf.random.set_seed(9)
        assert state._seed == 9
        state._seed = 5
        state._rng.setstate(numbers)
        state.clear_kernel_cache()  # a cached operation goes on with its own generator
        assert [tf.random.uniform((4,)).numpy().tolist() for _ in range(2)] == following


def test_keras_keeps_names_and_settings_of_a_thread_in_two_trackers():
    """A training begins with none, and puts them back when it ends (`process.begin_anew`, `process.put_back`)."""
    from keras.src.backend.common import global_state

    names, settings = global_state.GLOBAL_STATE_TRACKER.__dict__, global_state.GLOBAL_SETTINGS_TRACKER.__dict__
    with put_back():
        names.clear()
        settings.clear()
        first, second = keras.layers.Dense(1), keras.layers.Dense(1)
        assert (first.name, second.name, keras.config.dtype_policy().name) == ("dense", "dense_1", "float32")
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.utils.set_random_seed(7)
        before = dict(names), dict(settings)
        names.clear()
        settings.clear()
        assert (keras.layers.Dense(1).name, keras.config.dtype_policy().name) == ("dense", "float32")
        names.update(before[0])
        settings.update(before[1])
        assert keras.layers.Dense(1).name == "dense_2" and keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_function_is_frozen_to_constants():
    """LiteRT and OpenVINO get a graph whose weights are constants (`models.frozen`)."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    weight = tf.Variable([2.0])
    function = tf.function(lambda x: x * weight, input_signature=[tf.TensorSpec((1,), tf.float32)])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    weight.assign([5.0])
    assert not frozen.graph.variables and np.allclose(frozen(tf.constant([3.0])), 6.0)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_litert_tells_its_operations():
    """int8 keeps some operations in float32, found by their tensors (`save`)."""
    weight = tf.Variable([[2.0]])
    function = tf.function(lambda x: tf.matmul(x, weight), input_signature=[tf.TensorSpec((1, 1), tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    (operation,) = [one for one in interpreter._get_ops_details() if one["op_name"] == "FULLY_CONNECTED"]
    assert {"inputs", "outputs"} <= set(operation)
    assert callable(tf.lite.experimental.QuantizationDebugger)


def test_tfds_says_that_it_does_not_know_a_data_set():
    import tensorflow_datasets as tfds

    with pytest.raises(tfds.core.registered.DatasetNotFoundError):
        tfds.builder("no_such_data_set_of_images")


@pytest.mark.parametrize("module", ["functional", "sequential", "model"])
def test_keras_files_name_the_modules_of_models_so(module):
    """The scan of model files knows classes by the module that Keras writes (`scan.layers`)."""
    importlib.import_module(f"keras.src.models.{module}")
    model = keras.Sequential([keras.layers.Input((1,))])
    assert type(model).__module__ == "keras.src.models.sequential"
