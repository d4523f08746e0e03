"""Recipes: reading, overriding, and every fault in one message."""

import pytest
import tomli_w
from conftest import one_line_error

import kerascls
from kerascls.errors import ConfigError
from kerascls.recipes import catalog, load

RECIPE = """# kerascls train mine.toml
# A test recipe.
[data]
name = "digits"
[model]
name = "mnist_cnn"
[train]
epochs = 3
"""


@pytest.fixture
def mine(tmp_path):
    def write(text=RECIPE):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return "mine.toml"

    return write


def test_every_recipe_that_we_ship_is_sound():
    names = catalog.recipe_names()
    assert {"mnist_cnn", "mnist_cnn_bn", "articles/mnist_tensorflow", "articles/mnist_pytorch"} <= set(names)
    for name in names:
        loaded = load.load_config(name)
        text = catalog.recipe_path(name).read_text(encoding="utf-8")
        data = "" if loaded.data.name else " --data FOLDER"
        assert text.startswith(f"# kerascls train {name}{data}\n"), name
        assert load.config_from_toml(loaded.as_toml(), loaded.recipe, None) == loaded
        if loaded.fallback.data:
            stand_in = load.load_config(name, use_fallback=True)
            assert (stand_in.data.name, stand_in.fallback_for) == (loaded.fallback.data, loaded.data.name)


def test_every_recipe_of_a_pytorch_article_begins_as_pytorch_does():
    for name in ("mnist_pytorch", "cifar_cnn", "cifar_lenet", "cifar_cnn_bn", "caltech10_resnet50"):
        loaded = load.load_config(f"articles/{name}")
        assert loaded.model.options["initializer"] == "pytorch", name
        assert loaded.train.optimizer == "sgd" or loaded.train.epsilon == 1e-8, name


def test_overrides_win_over_the_fallback_and_the_fallback_over_the_recipe(mine):
    name = mine(
        RECIPE.replace('"digits"', '"mnist"') + 'batch_size = 64\n[fallback]\ndata = "digits"\nepochs = 9\n'
        "batch_size = 16\n"
    )
    loaded = load.load_config(name, {"train": {"epochs": 5}}, use_fallback=True)
    assert (loaded.data.name, loaded.fallback_for) == ("digits", "mnist")
    assert (loaded.train.epochs, loaded.train.batch_size) == (5, 16)


@pytest.mark.parametrize(
    ("given", "fallback", "warmup", "said"),
    [
        ({"epochs": 2}, False, 0.5, ["train.warmup_epochs = 0.5 for train.epochs = 2: the recipe's 5 of 20, scaled."]),
        ({"epochs": 40}, False, 10, ["train.warmup_epochs = 10 for train.epochs = 40: the recipe's 5 of 20, scaled."]),
        ({"epochs": 3}, True, 0.75, ["train.warmup_epochs = 0.75 for train.epochs = 3: the recipe's 2 of 8, scaled."]),
        ({"epochs": 20}, False, 5, []),
        ({"epochs": 2, "warmup_epochs": 1}, False, 1, []),
        ({"warmup_epochs": 7}, False, 7, []),
        ({}, False, 5, []),
    ],
)
def test_other_epochs_scale_the_warmup_and_say_so(mine, given, fallback, warmup, said):
    train = RECIPE.replace("epochs = 3", "epochs = 20\nwarmup_epochs = 5").replace('"digits"', '"mnist"')
    assert "warmup_epochs = 5" in train
    name = mine(train + '[fallback]\ndata = "digits"\nepochs = 8\nwarmup_epochs = 2\n')
    loaded = load.load_config(name, {"train": given}, use_fallback=fallback)
    assert loaded.train.warmup_epochs == warmup
    more = " For another: --set train.warmup_epochs=N"
    assert list(loaded.notes) == [line + more for line in said]
    assert load.config_from_toml(loaded.as_toml(), loaded.recipe, loaded.fallback_for) == loaded


def test_a_finetunings_warmup_is_scaled_too(mine):
    name = mine(RECIPE + "[finetune]\nepochs = 10\nwarmup_epochs = 2\nunfreeze = 3\n")
    for epochs, warmup in ((5, 1), (0, 0)):
        assert load.load_config(name, {"finetune": {"epochs": epochs}}).finetune.warmup_epochs == warmup


@pytest.mark.parametrize("section", ["train", "finetune"])
@pytest.mark.parametrize("warmup, refused", [(3, True), (4.5, True), (2.9, False)])
def test_a_warmup_as_long_as_the_training_is_refused(mine, section, warmup, refused):
    name = mine(RECIPE + "[finetune]\nepochs = 3\nunfreeze = 3\n")
    given = {section: {"warmup_epochs": warmup}}
    if not refused:
        assert getattr(load.load_config(name, given), section).warmup_epochs == warmup
        return
    with pytest.raises(ConfigError) as error:
        load.load_config(name, given)
    assert str(error.value) == (
        f"mine.toml with the given options has 1 fault: {section}.warmup_epochs must be below {section}.epochs, 3, or "
        f"the training is all warm-up. Received: {warmup:g}"
    )
    tables = {**load.load_config(name).as_tables()}
    tables[section] |= {"warmup_epochs": warmup}
    load.config_from_toml(tomli_w.dumps(tables), "mine", None)  # a run that was trained so can be read


def test_a_recipes_shards_are_for_its_own_network(mine):
    """With another one they would be at best a guess; those that are asked for stay."""
    name = mine(RECIPE + "[devices]\nshards = 2\n")

    def shards(overrides):
        return load.load_config(name, overrides).devices.shards

    assert shards({}) == shards({"model": {"name": "mnist_cnn"}}) == shards({"train": {"epochs": 1}}) == 2
    assert shards({"model": {"name": "cifar_cnn_bn"}}) == 1
    assert shards({"model": {"name": "cifar_cnn_bn"}, "devices": {"precision": "auto"}}) == 1
    assert shards({"model": {"name": "cifar_cnn_bn"}, "devices": {"shards": 3}}) == 3


def test_set_reads_toml_values_and_plain_text():
    sets = load.parse_sets(
        [
            "train.epochs=3",
            "train.learning_rate=1e-3",
            "train.optimizer=sgd",
            "data.image_shape=[28, 28, 1]",
            "train.drop_remainder=true",
        ]
    )
    assert sets == {
        "train": {"epochs": 3, "learning_rate": 1e-3, "optimizer": "sgd", "drop_remainder": True},
        "data": {"image_shape": [28, 28, 1]},
    }


@pytest.mark.parametrize("item", ["epochs=3", "train.epochs", "=3", "train.=3"])
def test_set_without_section_key_or_value_is_refused(item):
    with pytest.raises(ConfigError, match="SECTION.KEY=VALUE"):
        load.parse_sets([item])


def test_all_faults_come_in_one_message_with_the_nearest_name(mine):
    name = mine(RECIPE + 'epoch = 4\nlearning_rate = "fast"\nbatch_size = 0\noptimizer = "adm"\n[trian]\nx = 1\n')
    with pytest.raises(ConfigError) as caught:
        load.load_config(name, {"model": {"filtres": 4}, "data": {"name": "digts"}})
    message = str(caught.value)
    assert message.startswith("mine.toml with the given options has 7 faults:")
    for part in (
        "train.epoch is not a key. Did you mean epochs?",
        "train.learning_rate must be a number",
        "train.batch_size must be at least 1. Received: 0",
        "Did you mean adam?",
        "[trian] is not a section. Did you mean train?",
        "model.filtres is not an option of mnist_cnn. Did you mean filters?",
        "Did you mean digits?",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    "key, value, fault",
    [
        ("epochs", True, "a whole number"),
        ("epochs", 2.0, "a whole number"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", float("nan"), "finite"),
        ("label_smoothing", 1.5, "at most 1"),
        ("seed", -1, "at least 0"),
        ("keep", "first", "one of best, last"),
    ],
)
def test_wrong_types_and_values_are_refused(mine, key, value, fault):
    with pytest.raises(ConfigError, match=fault):
        load.load_config(mine(), {"train": {key: value}})


def test_best_epoch_by_the_test_split_is_refused(mine):
    with pytest.raises(ConfigError, match='keep must be "last"'):
        load.load_config(mine(), {"data": {"validation": "test"}})
    load.load_config(mine(), {"data": {"validation": "test"}, "train": {"keep": "last"}})


def test_early_stopping_without_validation_is_refused(mine):
    with pytest.raises(ConfigError, match="needs a validation split"):
        load.load_config(mine(), {"data": {"validation": 0}, "train": {"early_stopping_patience": 2}})
    stops = load.load_config(mine(), {"train": {"early_stopping_patience": 2}})  # there is one by default
    assert (stops.train.early_stopping_patience, stops.data.validation) == (2, 0.1)


@pytest.mark.parametrize(
    "policy, fault",
    [
        ([{"name": "afine"}], "Did you mean affine?"),
        (["flip"], "must be a table"),
        ([{"name": "affine", "degree": 3}], "Did you mean degrees?"),
        ([{"name": "flip", "vertical": 1}], "true or false"),
        ([{"name": "cutout", "probability": 1.5}], "augment.policy[0].probability must be in [0, 1]. Received: 1.5"),
        ([{"name": "color_jitter", "hue": 0.6}], "in [0, 0.5]"),
        ([{"name": "random_resized_crop", "min_area": float("nan")}], "in [0.01, 1]"),
        ([{"name": "random_resized_crop", "height": 20000}], "in [0, 10000]"),
        ([{"name": "rotation", "fill_mode": "nearst"}], "nearest, constant, reflect, wrap. Did you mean nearest?"),
        ([{"name": "rotation", "fill_mode": 0}], "must be text. Received: 0"),
        ([{"name": "mixup", "alpha": 0}], "in [0.05, 100]"),
        ([{"name": "affine_matrices"}], "with name one of color_jitter"),
    ],
)
def test_faults_of_a_policy_are_told(mine, policy, fault):
    with pytest.raises(ConfigError) as caught:
        load.load_config(mine(), {"augment": {"policy": policy}})
    assert fault in str(caught.value)


def test_broken_toml_and_unknown_recipes_are_one_line(mine, capsys):
    mine("[train\nepochs = 3")
    assert "not valid TOML" in one_line_error("train", "mine.toml", capsys=capsys)
    assert "Did you mean mnist_cnn?" in one_line_error("train", "mnist_cn", capsys=capsys)
    assert "kerascls new nowhere" in one_line_error("train", "nowhere.toml", capsys=capsys)


@pytest.mark.parametrize(
    "key, meant",
    [
        ("train.lr", "learning_rate"),
        ("train.bs", "batch_size"),
        ("train.optimiser", "optimizer"),
        ("train.image_size", "data.image_shape"),
        ("data.imgsz", "image_shape"),
        ("data.model", "model.name"),
        ("model.lr", "train.learning_rate"),
        ("train.momentun", "momentum"),
    ],
)
def test_other_tools_names_of_keys_are_answered_by_ours(mine, key, meant):
    with pytest.raises(ConfigError) as error:
        load.load_config(mine(), load.parse_sets([f"{key}=1"]))
    assert f"{key} is not a" in str(error.value) and f" Did you mean {meant}?" in str(error.value)


def test_a_key_without_its_section_is_named():
    with pytest.raises(ConfigError, match=r"Received: 'lr=0.1'. Did you mean train.learning_rate=0.1\?"):
        load.parse_sets(["lr=0.1"])
    with pytest.raises(ConfigError, match=r"Received: 'epochs'\.$"):
        load.parse_sets(["epochs"])


def test_one_number_is_the_side_of_a_square(mine):
    def shape(text, recipe=RECIPE):
        return load.load_config(mine(recipe), load.parse_sets([f"data.image_shape={text}"])).data.image_shape

    assert shape("64") == shape("[64, 64, 3]") == [64, 64, 3]
    gray = RECIPE.replace("[data]", "[data]\nimage_shape = [28, 28, 1]")
    assert shape("64", gray) == [64, 64, 1]  # as the recipe's own
    for text in ("[64]", "big", "64.5", "true"):
        with pytest.raises(ConfigError, match=r"\[64, 64, 3\]}}, or 64 for short. Rec"):
            shape(text)
    with pytest.raises(ConfigError, match="data.image_shape must be at least 1"):
        shape("0")


@pytest.mark.parametrize("call", [kerascls.train, kerascls.show])
def test_overrides_that_are_no_tables_are_refused_in_one_line(call):
    with pytest.raises(ConfigError, match=r"Received: \{'train.learning_rate': 0.1\}"):
        call("mnist_cnn", overrides={"train.learning_rate": 0.1})
