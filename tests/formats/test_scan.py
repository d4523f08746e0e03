"""Model files are programs: what would do harm is refused in one line, before any of it runs.

Every file here is made by its test, and what would run in it makes a file `marker`, which must not be there afterwards.
"""

import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import test_isolated
from conftest import REPOSITORY, one_line_error, processor_seconds, tiny_backbone

from benchmarks import serving
from kerascls.cli import run as kerascls_command
from kerascls.errors import ModelError
from kerascls.formats import litert
from kerascls.formats.card import CARD, Card
from kerascls.formats.h5 import save_h5
from kerascls.formats.inspect import inspect
from kerascls.formats.keras import save_keras
from kerascls.formats.litert import save_litert
from kerascls.formats.saved_model import save_saved_model
from kerascls.formats.scan import graphs, layers, limits
from kerascls.formats.scan.containers import read_h5
from kerascls.formats.scan.programs import _SCHEMA as ONNX
from kerascls.formats.scan.programs import read_program
from kerascls.formats.scan.protobuf import schema
from kerascls.formats.weights import save_weights
from kerascls.inference.loading import load
from kerascls.models import build_model

CARD_3 = Card(("a", "b", "c"), (8, 8, 1))
MOST_SECONDS, MOST_BYTES = 10, 300 << 20  # of a refusal; the bytes are of a whole process, Python and h5py included


def small(*between):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    for layer in between:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(keras.layers.Flatten()(x)))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of one small model as good.keras, good.h5 and good/, and of lambda.keras and lambda.h5."""
    folder = tmp_path_factory.mktemp("good")
    model = small()
    save_keras(model, CARD_3, folder / "good.keras")
    save_h5(model, CARD_3, folder / "good.h5")
    save_weights(model, CARD_3, folder / "good")
    code = keras.layers.Lambda(lambda x: (__import__("pathlib").Path("marker").touch(), x)[1], name="code")
    with contextlib.chdir(folder):  # the code runs here, as its model is made
        inside = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.ReLU(), code], name="inside")
        for name in ("lambda.keras", "lambda.h5"):
            small(inside).save(folder / name)
    return folder


def refused(path):
    """The line with which a file is refused, quickly and before anything in it ran."""
    begin = processor_seconds()
    with pytest.raises(ModelError) as caught:
        load(path)
    assert processor_seconds() - begin < MOST_SECONDS
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and str(path) in line
    assert not Path("marker").exists()
    return line


def rezipped(source, target, change=None, add=None, **options):
    """`source`, a .keras, with `change` made in the entries {name: bytes} and those of `add` written behind them."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    if change:
        change(entries)
    with zipfile.ZipFile(target, "w", **options) as archive:
        for name, content in [*entries.items(), *(add or [])]:
            archive.writestr(name, content)
    return Path(target)


def reconfigured(source, target, change):
    """`source` with `change` made in the configuration of its model."""
    if source.suffix == ".keras":

        def change_entry(entries):
            config = json.loads(entries["config.json"])
            change(config)
            entries["config.json"] = json.dumps(config).encode()

        return rezipped(source, target, change_entry)
    Path(target).write_bytes(source.read_bytes())
    with h5py.File(target, "a") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return Path(target)


def layer(config, name):
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == name)


def put(name, key, value):
    """A change of a configuration: `value` for `key` of layer `name`."""
    return lambda config: layer(config, name)["config"].update({key: value})


# Configurations


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
def test_a_lambda_in_a_nested_model_is_named_with_its_place(good, name):
    assert "Lambda, at functional" in (line := refused(good / name)) and "/inside/code, is none of Keras' own" in line


def hidden(layer_config):
    """A change that puts a layer into a wrapper in place of the flattening one."""

    def change(config):
        place = next(one for one in config["config"]["layers"] if one["class_name"] == "Flatten")
        inner = {"layer": layer_config, "name": "wrapped"}
        place.update({"class_name": "TimeDistributed", "config": inner})

    return change


def bare(class_name, module="keras.layers", config=None, **more):
    return {"module": module, "class_name": class_name, "config": config or {}, "registered_name": None, **more}


def compiled_inside(config):
    layer(config, "conv")["compile_config"] = {"loss": bare("Loss", "evil", registered_name="evil>Loss")}


def built_inside(config):
    layer(config, "conv")["build_config"] = {"input_shape": bare("__lambda__", None, {"value": ["4wEA"]})}


ATTACKS = {
    "TFSMLayer": (hidden(bare("TFSMLayer", config={"filepath": "writer"})), "keras.layers.TFSMLayer, at"),
    "old Lambda": (hidden(bare("Lambda", config={"function": ["4wEA", None, None]})), "Lambda"),
    "torch": (hidden(bare("TorchModuleWrapper", config={"module": "x"})), "TorchModuleWrapper"),
    "vocabulary": (hidden(bare("StringLookup", config={"vocabulary": "secret.txt"})), "StringLookup"),
    "import": (hidden(bare("system", "os")), "os.system"),
    "same name elsewhere": (hidden(bare("Dense", "evil.layers")), "evil.layers.Dense"),
    "submodule": (hidden(bare("Dense", "keras.src.layers.core.dense")), "keras.src.layers.core.dense.Dense"),
    "registered": (hidden(bare("Dense", registered_name="evil>Dense")), "evil>Dense"),
    "code": (put("classes", "kernel_initializer", bare("__lambda__", None, {"value": "4wEA"})), "__lambda__"),
    "type": (put("classes", "kernel_initializer", bare("__typespec__", None, {}, spec_name="x")), "__typespec__"),
    "download": (
        put("classes", "activation", bare("function", "keras.utils", "get_file")),
        "the function get_file",
    ),
    "unsafe": (
        put("classes", "activation", bare("function", "keras.config", "enable_unsafe_deserialization")),
        "the function enable_unsafe_deserialization",
    ),
    "loader": (put("classes", "activation", bare("load_model", "keras.models")), "keras.models.load_model"),
    "no text": (put("classes", "activation", {"class_name": ["Lambda"], "config": {}}), "['Lambda']"),
    "compiled": (compiled_inside, "evil>Loss"),
    "built": (built_inside, "__lambda__"),
    "units": (put("classes", "units", 10**12), "units is 1000000000000, and its weights are 475 numbers"),
    "kernel": (put("conv", "kernel_size", [10**6, 10**6]), "kernel_size is 1000000"),
    "digits": (put("conv", "seed", 10**30), "seed is 1"),
    "array": (put("conv", "bias_initializer", bare("__numpy__", None, {"value": [1], "dtype": "V999999999"})), "V999"),
    "state": (put("conv", "stateful", True), "stateful is true"),
}


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_none_of_keras_own_layers_is_refused(good, attack, kind):
    change, reason = ATTACKS[attack]
    assert reason in refused(reconfigured(good / f"good.{kind}", f"bad.{kind}", change))


def test_a_folder_of_architecture_goes_through_the_same_door(good, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for file in (good / "good").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "architecture.json").read_text())
    hidden(bare("TFSMLayer", config={"filepath": "writer"}))(config)
    (folder / "architecture.json").write_text(json.dumps(config))
    assert "TFSMLayer" in refused(folder)
    (folder / "architecture.json").write_text("[" * 100_000)
    assert "nested too deeply" in refused(folder)


def test_oversized_images_and_deep_nesting_are_refused(good):
    def wide(config):
        config["config"]["layers"][0]["config"]["batch_shape"] = [None, 10**5, 10**5, 1]

    assert "batch_shape is [100000, 100000, 1], more than" in refused(
        reconfigured(good / "good.keras", "bad.keras", wide)
    )
    deep = json.loads("[" * 300 + "]" * 300)
    line = refused(reconfigured(good / "good.keras", "deep.keras", put("conv", "seed", deep)))
    assert "nested more than 200 deep" in line


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_weights_that_the_file_does_not_hold_are_not_made(good, kind):
    """100 filters and 100 units alone are no more than the file's 475 numbers; together they make 100 x 3,600."""

    def change(config):
        layer(config, "conv")["config"]["filters"] = layer(config, "classes")["config"]["units"] = 100
        for one in config["config"]["layers"]:
            one.pop("build_config", None)

    line = refused(reconfigured(good / f"good.{kind}", f"bad.{kind}", change))
    assert "its layers would make 361,000 weights by classes, and 475 are in the file" in line


def test_what_a_model_was_compiled_with_is_neither_read_nor_refused(good):
    def change(config):
        config["compile_config"] = {"loss": bare("Loss", "mine", registered_name="mine>Loss")}

    assert load(reconfigured(good / "good.keras", "mine.keras", change)).class_names == ("a", "b", "c")


def test_every_name_on_the_lists_is_keras_or_tensorflows():
    for place, names in layers.PLACES.items():
        module = sys.modules.get(place) or __import__(place, fromlist=["x"])
        if place != "keras.models" and not place.startswith("keras.src.models"):
            here = {name for name in names if hasattr(module, name)}
            assert names - here <= layers.MODELS, place
    offered = {name for name in dir(keras.layers) if isinstance(getattr(keras.layers, name), type)}
    assert offered - layers.LAYERS == set(  # a new one of Keras is decided upon, here
        """
        CategoryEncoding Discretization FlaxLayer HashedCrossing Hashing InputSpec IntegerLookup JaxLayer Lambda Layer
        MaxNumBoundingBoxes MelSpectrogram ReversibleEmbedding STFTSpectrogram StringLookup TFSMLayer TextVectorization
        TorchModuleWrapper Wrapper
        """.split()
    )
    from tensorflow.python.framework import op_def_registry

    assert [op for op in graphs.OPS | graphs.SAVER if op_def_registry.get(op) is None] == []
    assert not {op for op in graphs.OPS if "File" in op or "PyFunc" in op or "Dataset" in op or "Print" in op}


# Archives


def test_archives_hold_what_keras_writes_and_nothing_else(good):
    source = good / "good.keras"
    for name in ("../marker", "/tmp/marker", "assets/../../marker", "C:\\marker", "run.py"):
        assert f"its archive has {name!r}" in refused(rezipped(source, "bad.keras", add=[(name, b"x")]))
    pickled = pickle.dumps(Path("marker"))
    assert "model.weights.npz" in refused(rezipped(source, "bad.keras", add=[("model.weights.npz", pickled)]))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = rezipped(source, "bad.keras", add=[("config.json", b"{}")])
    assert "has config.json twice" in refused(twice)
    link = zipfile.ZipInfo("metadata.json")
    link.external_attr = 0o120777 << 16
    without = lambda entries: entries.pop("metadata.json")  # noqa: E731
    assert "metadata.json in its archive is a link" in refused(rezipped(source, "bad.keras", without, [(link, "/etc")]))
    assert "has no model.weights.h5" in refused(
        rezipped(source, "bad.keras", lambda entries: entries.pop("model.weights.h5"))
    )
    whole = bytearray(source.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # the first entry's flags, in the directory at the end
    Path("bad.keras").write_bytes(whole)
    assert "is encrypted" in refused(Path("bad.keras"))


def test_archives_that_unpack_to_much_more_are_refused(good):
    def blow(name, size):
        return lambda entries: entries.update({name: b" " * size + entries[name]})

    for name, size in (("config.json", 10 << 20), ("model.weights.h5", 64 << 20), ("kerascls.json", 10 << 20)):
        bad = rezipped(good / "good.keras", "bad.keras", blow(name, size), compression=zipfile.ZIP_DEFLATED)
        assert f"{name} in its archive unpacks" in refused(bad)
    large = rezipped(good / "good.keras", "bad.keras", blow("config.json", 20 << 20))
    assert "config.json in its archive unpacks" in refused(large)
    packed = rezipped(good / "good.keras", "packed.keras", compression=zipfile.ZIP_DEFLATED)
    assert load(packed).class_names == ("a", "b", "c")  # as a tool that packs it again would leave it


# HDF5


def external_link(file):
    file["model_weights/more"] = h5py.ExternalLink("secret.h5", "/data")


def soft_link(file):
    file["model_weights/more"] = h5py.SoftLink("/model_weights/conv")


def external_storage(file):
    file.create_dataset("more", (4,), np.uint8, external=[("secret.bin", 0, 4)])


def virtual(file):
    plan = h5py.VirtualLayout((4,), np.float32)
    plan[:] = h5py.VirtualSource("secret.h5", "data", (4,))
    file.create_virtual_dataset("more", plan)


def shape_bomb(file):
    file.create_dataset("more", (10**6, 10**6), np.float32, chunks=(1000, 1000), compression="gzip")


def text(file):
    file.create_dataset("more", data=[b"x" * 100])


def reference(file):
    file.attrs["more"] = file["model_weights"].ref


def many_strings(file):
    file.attrs["long"] = "x" * (4 << 20)
    file.attrs.create("more", ["y"] * 4000, dtype=h5py.string_dtype())


def deep(file):
    file.create_group("/".join("x" * 100))


def named_type(file):
    file["more"] = np.dtype(np.float32)


HDF5 = {
    external_link: "more in its HDF5 is a link to another place or file",
    soft_link: "more in its HDF5 is a link",
    external_storage: "the numbers of more in its HDF5 lie in another file",
    virtual: "lie in another file",
    shape_bomb: "has the shape (1000000, 1000000), 4,000,000,000,000 bytes, of which 0 are there",
    text: "holds no numbers",
    reference: "neither numbers nor text",
    many_strings: "has the oversized shape (4000,)",
    deep: "nested more than 64 groups deep",
    named_type: "neither a group nor numbers",
}


@pytest.mark.parametrize("change", HDF5)
def test_hdf5_files_hold_numbers_of_their_own(good, tmp_path, change):
    with h5py.File("secret.h5", "w") as file:
        file["data"] = np.arange(4, dtype=np.float32)
    Path("secret.bin").write_bytes(b"\1\2\3\4")
    bad = tmp_path / "bad.h5"
    bad.write_bytes((good / "good.h5").read_bytes())
    with h5py.File(bad, "a") as file:
        change(file)
    assert HDF5[change] in refused(bad)

    with zipfile.ZipFile(good / "good.keras") as archive:
        archive.extract("model.weights.h5")
    with h5py.File("model.weights.h5", "a") as file:
        file.require_group("model_weights/conv")
        change(file)
    weights = Path("model.weights.h5").read_bytes()
    inside = rezipped(good / "good.keras", "in.keras", lambda entries: entries.update({"model.weights.h5": weights}))
    assert HDF5[change] in refused(inside)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "architecture.json").write_bytes((good / "good" / "architecture.json").read_bytes())
    (tmp_path / "folder" / "model.weights.h5").write_bytes(weights)
    assert HDF5[change] in refused(tmp_path / "folder")


def test_groups_that_hold_themselves_are_gone_through_once(good):
    Path("ring.h5").write_bytes((good / "good.h5").read_bytes())
    with h5py.File("ring.h5", "a") as file:
        file["model_weights/ring"] = file["/"]
    assert load("ring.h5").class_names == ("a", "b", "c")


def test_backbones_and_weights_of_transfer_models_go_through_the_same_door(good):
    bad = reconfigured(good / "good.keras", "bad.keras", hidden(bare("TFSMLayer", config={"filepath": "x"})))
    with pytest.raises(ModelError, match="TFSMLayer"):
        build_model("transfer", (8, 8, 3), 2, backbone=str(bad), pixel_range=(0, 1))
    with h5py.File("linked.weights.h5", "w") as file:
        file["x"] = h5py.ExternalLink("secret.h5", "/data")
    for backbone in ("MobileNetV2", str(tiny_backbone(Path("tiny.keras")))):
        with pytest.raises(ModelError, match="link to another place or file"):
            build_model("transfer", (32, 32, 3), 2, backbone=backbone, pixel_range=(0, 1), weights="linked.weights.h5")


# Graphs


def exported(change, path="bad"):
    """A SavedModel with the signature and the card of our own, whose answer also does `change`, and may return it."""
    Path(CARD).write_text(CARD_3.as_json())

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.card = tf.saved_model.Asset(CARD)
            self.weight = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.uint8)], autograph=False)
        def pixels(self, images):
            done = change(images)
            with tf.control_dependencies([done] if done is not None else []):
                return {"probabilities": tf.fill((tf.shape(images)[0], 3), 1 / 3) * self.weight}

    module = Module()
    tf.saved_model.save(module, path, signatures={"pixels": module.pixels})
    return Path(path)


def in_a_loop(images):
    body = lambda i: [tf.strings.length(tf.io.read_file("secret.txt")) + i]  # noqa: E731
    return tf.while_loop(lambda i: i < 1, body, [tf.constant(0)])[0]


GRAPHS = {
    "WriteFile": lambda images: tf.io.write_file("marker", "x"),
    "ReadFile": in_a_loop,
    "EagerPyFunc": lambda images: tf.py_function(lambda: Path("marker").touch(), [], []),
    "MatchingFiles": lambda images: tf.io.matching_files("*"),
    "PrintV2": lambda images: tf.print("x", output_stream="file://marker"),
    "RestoreV2": lambda images: tf.raw_ops.RestoreV2(
        prefix="secret", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0],
    "SaveV2": lambda images: tf.raw_ops.SaveV2(
        prefix="marker", tensor_names=["x"], shape_and_slices=[""], tensors=[tf.zeros(3)]
    ),
}


@pytest.mark.parametrize("op", GRAPHS)
def test_operations_that_reach_beyond_the_model_need_trust(op):
    path = exported(GRAPHS[op])
    line = refused(path)
    assert f"op {op} in function __inference_" in line or op == "ReadFile" and "op ReadFile in function while" in line
    assert "`trust` loads it" in line
    load(path, trust=True)


def test_trust_is_a_flag_of_predict_and_lifts_nothing_else(good, digit_pngs, capsys):
    image = digit_pngs[0] / "digit0.png"
    path = exported(GRAPHS["WriteFile"])
    assert "op WriteFile" in one_line_error("predict", path, image, capsys=capsys) and not Path("marker").exists()
    from conftest import here

    code, out, _ = here("predict", path, image, "--trust", capsys=capsys)
    assert code == 0 and "digit0.png" in out and Path("marker").exists()
    assert "Lambda" in one_line_error("predict", good / "lambda.keras", image, "--trust", capsys=capsys)


@pytest.mark.slow
def test_a_server_takes_what_needs_trust_by_the_flag_alone(capsys):
    pytest.importorskip("uvicorn", reason="needs the extra serve: pip install 'kerascls[serve]'")
    path = exported(GRAPHS["WriteFile"])
    assert "op WriteFile" in one_line_error("serve", path, "--port", "0", capsys=capsys)
    assert not Path("marker").exists()
    with serving.running(path, "--trust"):
        assert Path("marker").exists()  # by the batch that warms it up


def test_a_savers_functions_are_called_by_the_saver_alone(tmp_path):
    """`call` puts a node that calls the restoring function into the graph, as an attacker might, with another name."""
    path = exported(lambda images: None)
    assert graphs.read_graph(path).foreign == ()
    messages = schema(graphs._SCHEMA)
    file = path / "saved_model.pb"
    saved = messages["SavedModel"].FromString(file.read_bytes())
    graph = saved.meta_graphs[0].graph
    restore = next(node for node in graph.node if b"traced_restore" in node.SerializeToString())
    more = graph.node.add()
    more.CopyFrom(restore)
    more.name, more.input[0] = b"more", b"secret"
    file.write_bytes(saved.SerializeToString())
    assert graphs.read_graph(path).foreign[0][0] == "RestoreV2" and "op RestoreV2" in refused(path)


def test_assets_stay_in_their_folder():
    path = exported(lambda images: None)
    file = path / "saved_model.pb"
    saved = schema(graphs._SCHEMA)["SavedModel"].FromString(file.read_bytes())
    saved.meta_graphs[0].assets[0].filename = b"../../secret"
    file.write_bytes(saved.SerializeToString())
    assert "names the asset '../../secret'" in refused(path)


# Other runtimes


def test_custom_operations_of_a_tflite_are_named(tmp_path):
    function = tf.function(lambda x: tf.math.erfinv(x), input_signature=[tf.TensorSpec((1, 8, 8, 1), tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.allow_custom_ops = True
    path = tmp_path / "bad.tflite"
    path.write_bytes(converter.convert())
    assert "operation Erfinv is none of LiteRT's own" in refused(path)


def test_a_tflite_that_would_crash_its_interpreter_is_refused(tmp_path):
    good, bad = tmp_path / "good.tflite", tmp_path / "bad.tflite"
    save_litert(small(), CARD_3, good)
    whole = good.read_bytes()

    def field(table, number):  # the place of an entry in the list of fields of a FlatBuffer's table
        return table - struct.unpack_from("<i", whole, table)[0] + 4 + 2 * number

    def follow(place):
        return place + struct.unpack_from("<I", whole, place)[0]

    def inside(table, number):
        return follow(table + struct.unpack_from("<H", whole, field(table, number))[0])

    model = follow(0)
    graph = follow(inside(model, 2) + 4)
    operation = follow(inside(graph, 3) + 4)
    places = {
        "an operation of a tensor that is not there": inside(operation, 1) + 4,
        "a result that is no tensor": inside(operation, 2) + 4,
    }
    for reason, place in places.items():
        damaged = bytearray(whole)
        struct.pack_into("<i", damaged, place, 128)
        bad.write_bytes(damaged)
        assert reason in refused(bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert, "_tried", test_isolated.crashes)
        assert "it ended its reader with SIGABRT" in refused(good)
    assert load(good).class_names == ("a", "b", "c")


def test_an_hdf5_of_many_packed_data_sets_has_a_bound_for_all_of_them(good, tmp_path, monkeypatch):
    """Each alone would pass."""
    bad = tmp_path / "bad.h5"
    bad.write_bytes((good / "good.h5").read_bytes())
    with h5py.File(bad, "a") as file:
        for i in range(2):
            file.create_dataset(f"model_weights/more{i}", data=np.zeros(1 << 16, np.float32), compression="gzip")
    assert read_h5(bad).values > 2 << 16
    monkeypatch.setattr(limits, "MOST_UNPACKED", 3 << 17)
    with pytest.raises(ModelError, match="its HDF5 unpacks .* bytes to 5[0-9]{2},"):
        read_h5(bad)


def test_a_tflite_that_would_never_answer_is_refused(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32)])
    def endless(images):
        rows = tf.reshape(images, (-1, 64))[:, :3]
        return tf.while_loop(lambda x: tf.reduce_max(x * 0) < 1, lambda x: x * 0.5 + 1, [rows])

    path = tmp_path / "endless.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([endless.get_concrete_function()]).convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CARD, CARD_3.as_json())
    assert read_program(path).loops
    assert "it came to no end in 4 s of a core" in refused(path)


def test_a_tflite_of_oversized_shapes_or_wild_offsets_is_refused(tmp_path):
    good = tmp_path / "good.tflite"
    save_litert(small(), CARD_3, good)
    whole = good.read_bytes()
    shape = np.array([1, 8, 8, 1], "<i4").tobytes()
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(whole.replace(shape, np.array([1, 10**6, 10**6, 1], "<i4").tobytes()))
    assert "has the oversized shape [1, 1000000, 1000000, 1]" in refused(bad)
    generator = np.random.default_rng(0)
    for _ in range(300):  # whatever is damaged, it is read as it is or refused in one line
        damaged = bytearray(whole)
        for at in generator.integers(0, len(whole) // 2, 4):
            damaged[at] = generator.integers(256)
        bad.write_bytes(damaged)
        try:
            read_program(bad)
        except ModelError as error:
            assert str(bad) in str(error)


def test_onnx_of_other_domains_folders_and_shapes_is_refused(tmp_path):
    def onnx(change):
        model = schema(ONNX)["Model"]()
        model.graph.node.add(op=b"Relu")
        change(model.graph)
        (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError) as caught:
            read_program(tmp_path / "bad.onnx")
        return str(caught.value)

    def outside(graph, location):
        graph.initializer.add(side=[2]).external.add(key=b"location", value=location)

    def inner(graph):
        branch = graph.node.add(op=b"If").attribute.add().graph
        branch.node.add(op=b"Run", domain=b"evil")

    assert "operation evil.Run is none of ONNX's own" in onnx(inner)
    assert "in '../secret', which is not in its folder" in onnx(lambda graph: outside(graph, b"../secret"))
    assert "in '/etc/hosts'" in onnx(lambda graph: outside(graph, b"/etc/hosts"))
    os.mkfifo("numbers")
    assert "numbers is no file, but a pipe or device" in onnx(lambda graph: outside(graph, b"numbers"))
    large = onnx(lambda graph: graph.initializer.add(name=b"w", side=[10**6, 10**6]))
    assert "w has the shape [1000000, 1000000], larger than the file" in large


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m.tflite", "m.onnx", "model.bin", "variables/variables.index"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name):
    folder = Path("m")
    (folder / name).parent.mkdir(parents=True)
    os.mkfifo(folder / name)
    if name == "model.bin":
        (folder / "model.xml").write_text("<net/>")
    if name.startswith("variables"):
        save_saved_model(small(), CARD_3, Path("good"))
        (folder / "saved_model.pb").write_bytes(Path("good/saved_model.pb").read_bytes())
        (folder / "assets").mkdir()
        (folder / "assets" / CARD).write_bytes(Path("good/assets", CARD).read_bytes())
    model = folder if name.startswith(("model.bin", "variables")) else folder / name
    assert f"{Path(name).name} is no file, but a pipe or device" in refused(model)


@pytest.mark.parametrize(
    "layer, reason",
    [
        ('<layer type="Run" version="evil"/>', "operation evil.Run is none of OpenVINO's own"),
        ('<layer type="Const" name="w" version="opset1"><data offset="0" size="999"/></layer>', "end at 999 of 0"),
        ('<layer type="Relu" version="opset1"><port><dim>999999</dim><dim>999999</dim></port></layer>', "oversized"),
    ],
)
def test_openvino_of_other_operations_and_sizes_is_refused(tmp_path, layer, reason):
    (tmp_path / "bad.xml").write_text(f"<net><layers>{layer}</layers></net>")
    with pytest.raises(ModelError, match=reason):
        read_program(tmp_path / "bad.xml")
    (tmp_path / "bad.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><net>&a;</net>')
    with pytest.raises(ModelError, match="entities"):
        read_program(tmp_path / "bad.xml")


def test_a_variable_that_states_too_little_or_too_much_is_counted_and_told(tmp_path, capsys):
    """Whatever it states, its SavedModel is shown."""
    model = schema(graphs._SCHEMA)["SavedModel"]()
    graph = model.meta_graphs.add().graph
    for name, sides in ((b"sized", [2, 3]), (b"untyped", [5]), (b"endless", [2**62] * 400)):
        node = graph.node.add(name=name, op=b"VarHandleOp")
        shape = node.attributes.add(key=b"shape").value.shape
        for side in sides:
            shape.dimension.add(size=side)
        if name != b"untyped":
            node.attributes.add(key=b"dtype").value.type = 1
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "saved_model.pb").write_bytes(model.SerializeToString())
    assert graphs.read_graph(tmp_path / "odd").values == 6 + 2**63
    assert kerascls_command(["inspect", str(tmp_path / "odd")]) == 0
    assert "is no SavedModel that kerascls exported" in capsys.readouterr().out


# What crashes its reader


def test_what_this_process_has_written_is_read_by_it_while_it_is_unchanged(tmp_path, monkeypatch):
    path, others = tmp_path / "m.keras", []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: others.append(words) or run(*words, **options))
    save_keras(small(), CARD_3, path)
    assert load(path).class_names == ("a", "b", "c") and not others
    os.utime(path)
    assert load(path).class_names == ("a", "b", "c") and len(others) == 1


@pytest.mark.parametrize("name", ["m.keras", pytest.param("m.h5", marks=pytest.mark.slow)])
def test_an_hdf5_that_sends_its_library_round_for_ever_is_refused(good, tmp_path, name):
    """The heap of an attribute's text holds an object of no length: HDF5 looks for the next one where it stands."""
    whole, bad = bytearray((good / f"good{Path(name).suffix}").read_bytes()), tmp_path / name
    at = whole.index(b"GCOL") + 16
    whole[at : at + 16] = bytes(16)
    bad.write_bytes(whole)
    assert "came to no end" in (inspect(bad)["refused"] if name == "m.keras" else refused(bad))


# All of them


@pytest.mark.slow
def test_refusals_import_no_tensorflow_and_take_little_memory(good):
    """One process is asked for files of every kind: neither it nor one that it starts ever has more than MOST_BYTES."""
    bad = [good / "lambda.keras", good / "lambda.h5", exported(GRAPHS["WriteFile"])]
    bad.append(reconfigured(good / "good.keras", "units.keras", put("classes", "units", 10**12)))
    bad.append(rezipped(good / "good.keras", "zip.keras", add=[("../marker", b"x")]))
    blown = lambda entries: entries.update({"model.weights.h5": bytes(900 << 20)})  # noqa: E731
    bad.append(rezipped(good / "good.keras", "bomb.keras", blown, compression=zipfile.ZIP_DEFLATED))
    Path("shape.h5").write_bytes((good / "good.h5").read_bytes())
    with h5py.File("shape.h5", "a") as file:
        shape_bomb(file)
    bad.append(Path("shape.h5"))
    program = """
import resource, sys
from kerascls.errors import ModelError
from kerascls.formats.inspect import inspect
from kerascls.inference.loading import load
for path in sys.argv[1:]:
    try:
        load(path)
        print("loaded", path)
    except ModelError as error:
        assert "refused before anything in it runs" in str(error), error
print([name for name in ("tensorflow", "keras") if name in sys.modules])
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""
    # A process begins with its parent's peak, so a small one stands between.
    between = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"
    begin = processor_seconds()
    process = subprocess.run(
        [sys.executable, "-c", between, "-c", program, *map(str, bad)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert processor_seconds() - begin < MOST_SECONDS * len(bad)
    modules, peak = process.stdout.splitlines()
    assert modules == "[]" and int(peak) * 1024 < MOST_BYTES
    assert not Path("marker").exists()


@pytest.mark.parametrize("name", ["mnist_cnn", "mnist_cnn_bn"])
def test_released_models_load(name):
    run = REPOSITORY / "saved_models" / "released" / name
    assert load(run).class_names == tuple("0123456789")
    assert load(run / "exports" / "saved_model").class_names == tuple("0123456789")


MODELS = {
    "mnist_cnn": ((28, 28, 1), {}),
    "cifar_cnn_bn": ((32, 32, 3), {}),
    "small_cnn": ((32, 32, 3), {}),
    "cifar_resnet": ((32, 32, 3), {}),
    "MobileNetV2": ((32, 32, 3), {"backbone": "MobileNetV2", "weights": "none"}),
    "ResNet50": ((32, 32, 1), {"backbone": "ResNet50", "weights": "none"}),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("mnist_cnn", "cifar_cnn_bn") else pytest.mark.slow) for name in MODELS],
)
def test_every_file_of_our_own_models_loads(name, tmp_path):
    image_shape, options = MODELS[name]
    model = build_model("transfer" if options else name, image_shape, 3, **options)
    card = Card(("a", "b", "c"), image_shape)
    images = np.random.default_rng(0).integers(0, 256, (2, *image_shape), np.uint8)
    expected = model.predict(images, verbose=0)
    for save, file in ((save_keras, "m.keras"), (save_h5, "m.h5"), (save_weights, "w"), (save_saved_model, "s")):
        save(model, card, tmp_path / file)
        assert np.abs(load(tmp_path / file).probabilities(images) - expected).max() <= 1e-5, file


def test_common_layers_load():
    """Normalisations, attention, recurrence, wrappers, nested models, augmentation and operations of a graph."""
    layer = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layer.RandomFlip("horizontal")(layer.Rescaling(1 / 255)(inputs))
    x = layer.SeparableConv2D(8, 3, pointwise_regularizer="l2", depthwise_constraint="max_norm")(x)
    x = layer.PReLU()(layer.GroupNormalization(4)(x))
    block = keras.Sequential([layer.LayerNormalization(), layer.Dense(8, activation="gelu")], name="block")
    rows = layer.Reshape((36, 8))(block(x))
    rows = layer.Add()([rows, layer.MultiHeadAttention(2, 4)(rows, rows)])
    rows = layer.TimeDistributed(layer.Dense(4))(rows)
    rows = layer.Bidirectional(layer.LSTM(3, return_sequences=True))(rows)
    x = keras.ops.mean(rows * 2.0 + 1.0, axis=1)
    x = layer.SpectralNormalization(layer.Dense(5))(x)
    model = keras.Model(inputs, layer.Dense(4, activation=keras.activations.softmax, dtype="float32")(x))
    block.compile("adam", keras.losses.CategoricalCrossentropy())
    block.optimizer.build(block.trainable_variables)
    model.save("common.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    loaded = load("common.keras").probabilities(images)
    assert np.abs(loaded - model.predict(images, verbose=0)).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small", "DenseNet121", "ConvNeXtTiny"])
def test_networks_of_keras_applications_load(name):
    network = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=3)
    network.save("network.keras")
    assert load("network.keras").card == Card(("0", "1", "2"), (64, 64, 3))
