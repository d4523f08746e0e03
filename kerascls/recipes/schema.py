"""Recipes: reading, overriding and checking them, without importing TensorFlow.

A recipe is a TOML file. Its tables are the dataclasses below; the keys of `[model]` beyond `name` are the keyword
arguments of that model's `build`. All faults of a recipe are reported together, each with the nearest known name.
"""

import dataclasses
from typing import Any

import tomli_w

from kerascls.recipes.fields import key

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "lion")
SCHEDULES = ("constant", "cosine", "linear")
RESIZE_RULES = ("stretch", "nearest", "center_crop")


@dataclasses.dataclass(frozen=True)
class Data:
    name: str = key(
        "",
        types=(str,),
        doc='a data set\'s name, a folder of class folders, tfds:NAME, a FILE.npz, or ./my_data.py; "" asks for --data',
    )
    classes: list[str] = key(
        [], types=(list,), doc="class names in the order of the outputs, which the data must have; [] takes the data's"
    )
    validation: int | float | str = key(
        0.1,
        types=(int, float, str),
        low=0,
        doc=(
            "held out of train where the data has no validation split: a count, a fraction below 1, 0 for none, "
            'or "test" to validate on the test split as some articles do (then keep = "last")'
        ),
    )
    test: int | float = key(
        0.1,
        types=(int, float),
        low=0,
        doc="held out of train where the data has no test split: a count, a fraction below 1, 0 for none",
    )
    image_shape: list[int] = key(
        [],
        types=(list,),
        items=(0, 3),
        low=1,
        doc=("[height, width, channels] that images are resized to; [] is the data set's own; 64 is [64, 64, 3]"),
        example="--set 'data.image_shape=[64, 64, 3]', or 64 for short",
    )
    resize: str = key(
        "stretch",
        types=(str,),
        choices=RESIZE_RULES,
        doc=(
            "stretch: both sides to their length, bilinear; nearest: likewise, by picking pixels; center_crop: the "
            "shorter side to 8/7 of its length (256 for 224), then the centre"
        ),
    )
    canvas: list[int] = key(
        [],
        types=(list,),
        items=(0, 2),
        low=1,
        doc="[height, width] of training images before the policy, which must end at image_shape; [] is image_shape",
    )
    background: list[int] = key(
        [255, 255, 255], types=(list,), items=(3,), low=0, high=255, doc="RGB that transparent pixels lie on"
    )
    cache_mb: int = key(
        2048,
        types=(int,),
        low=0,
        doc="images of a folder are kept decoded in memory where they take at most so many megabytes; 0 never does",
    )
    on_bad_image: str = key(
        "skip",
        types=(str,),
        choices=("skip", "error"),
        doc="of an image in a folder that cannot be read: skip leaves it out and says so, error stops before training",
    )
    max_bad_share: float = key(
        0.05,
        types=(float, int),
        low=0,
        high=1,
        doc="share of a folder's images that may be left out, rounded up to whole images; above it nothing is trained",
    )


@dataclasses.dataclass(frozen=True)
class Model:
    name: str = key(types=(str,), doc="a model's name or ./my_net.py; other keys of [model] go to its build()")
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Train:
    epochs: int = key(types=(int,), low=1, doc="passes over the training split")
    batch_size: int = key(32, types=(int,), low=1, doc="images a step")
    optimizer: str = key("adam", types=(str,), choices=OPTIMIZERS, doc="one of " + ", ".join(OPTIMIZERS))
    learning_rate: float = key(1e-3, types=(float, int), above=0, doc="the schedule's highest")
    schedule: str = key(
        "constant",
        types=(str,),
        choices=SCHEDULES,
        doc=("after warm-up the learning rate stays, or falls to 0 along a half cosine or a line, step by step"),
    )
    warmup_epochs: float = key(0.0, types=(float, int), low=0, doc="the learning rate climbs linearly for so long")
    momentum: float = key(0.9, types=(float, int), low=0, high=1, doc="of sgd and rmsprop")
    beta_2: float = key(0.999, types=(float, int), low=0, high=1, doc="of adam, adamw and nadam")
    epsilon: float = key(1e-7, types=(float, int), above=0, doc="of adam, adamw, nadam and rmsprop")
    weight_decay: float = key(0.0, types=(float, int), low=0, doc="decoupled, of any optimiser")
    exclude_from_weight_decay: list[str] = key(
        ["bias", "gamma", "beta", "scale"],
        types=(list,),
        doc="names of variables that weight_decay leaves alone: biases, and what normalisation learns; [] decays all",
    )
    ema_momentum: float = key(
        0.0,
        types=(float, int),
        low=0,
        high=0.99999,
        doc=(
            "validate and save moving averages of the weights, average = m * average + (1 - m) * weight, with batch "
            "normalisation's moments taken anew of up to 100 training batches; 0 for none"
        ),
    )
    label_smoothing: float = key(
        0.0, types=(float, int), low=0, high=1, doc="share of each label spread over all classes"
    )
    class_weight: str = key(
        "none",
        types=(str,),
        choices=("none", "balanced"),
        doc=(
            "balanced: each class weighs examples / (classes * its examples) in the training loss; the validation loss "
            "is unweighted"
        ),
    )
    keep: str = key(
        "best",
        types=(str,),
        choices=("best", "last"),
        doc="which epoch is saved; best is by validation loss, the plain cross-entropy",
    )
    early_stopping_patience: int = key(
        0, types=(int,), low=0, doc=("stop after so many epochs without a better validation loss; 0 never stops early")
    )
    drop_remainder: bool = key(False, types=(bool,), doc="leave out the last partial batch of an epoch")
    seed: int = key(0, types=(int,), low=0, high=2**31 - 1, doc="of initial weights, epoch order and all else random")
    steps_per_execution: int = key(0, types=(int,), low=0, doc="steps a call into TensorFlow; 0 chooses by batch size")
    checkpoint_steps: int = key(
        0,
        types=(int,),
        low=0,
        doc=("a checkpoint every so many steps, as well as after epochs; 0 for every ten minutes"),
    )
    save_epochs: bool = key(False, types=(bool,), doc="keep a file of every epoch as well, epochs/001.keras and so on")
    samples: int = key(
        64, types=(int,), low=0, doc="test images kept with the run to prove exports by; 0 for private data"
    )


@dataclasses.dataclass(frozen=True)
class Finetune:
    epochs: int = key(
        0,
        types=(int,),
        low=0,
        doc="epochs after those of [train], from the kept one on, in which the backbone trains too",
    )
    unfreeze: int | str = key(
        0,
        types=(int, str),
        low=0,
        doc=(
            "layers of the backbone that train then: how many from its end, or how a layer's name begins, as "
            '"conv5_block1": it and all after it; batch normalisation stays frozen'
        ),
    )
    learning_rate: float = key(1e-5, types=(float, int), above=0, doc="of a new optimiser, of train.optimizer's kind")
    schedule: str = key("cosine", types=(str,), choices=SCHEDULES, doc="over these epochs")
    warmup_epochs: float = key(0.0, types=(float, int), low=0, doc="the learning rate climbs linearly for so long")


@dataclasses.dataclass(frozen=True)
class Features:
    views: int = key(
        0,
        types=(int,),
        low=0,
        high=1000,
        doc=(
            "0 trains on images. K computes the frozen backbone's features once, of K views of each training image, "
            "and trains the head on those: the image as it is, and K - 1 that the policy draws"
        ),
    )
    precision: str = key(
        "float32",
        types=(str,),
        choices=("float32", "bf16"),
        doc=(
            "bf16 folds batch normalisation into the convolutions and computes features in bfloat16 where the "
            "processor has it, and says how near that comes; the saved model is float32 either way"
        ),
    )
    engine: str = key(
        "auto",
        types=(str,),
        choices=("auto", "tensorflow", "openvino"),
        doc="what computes features; auto is openvino on a CPU where kerascls[openvino] is installed, else tensorflow",
    )


@dataclasses.dataclass(frozen=True)
class Augment:
    policy: list[dict[str, Any]] = key(
        [],
        types=(list,),
        doc=(
            'applied in order in the training step, as [{name = "affine", degrees = 10, shift = 0.1}, {name = "flip"}]'
        ),
    )
    until: float = key(
        1.0,
        types=(float, int),
        low=0,
        high=1,
        doc=(
            "share of the epochs, those of [finetune] among them, that the policy is applied in; the last ones see the "
            "images as they are"
        ),
    )


@dataclasses.dataclass(frozen=True)
class Devices:
    devices: str = key(
        "auto",
        types=(str,),
        doc=(
            "auto (the first GPU, else the CPU), cpu, gpu, gpu:1, gpu:0,1 (they share each batch), mirrored (all GPUs "
            "do), or cpu:0,1: two logical CPU devices, to try sharing where there is no GPU"
        ),
    )
    precision: str = key(
        "float32",
        types=(str,),
        choices=("float32", "bfloat16", "float16", "auto"),
        doc=(
            "what layers compute in; weights, outputs and the saved model are float32. float16 is for GPUs only, auto "
            "is bfloat16 where the processor has it"
        ),
    )
    xla: bool = key(
        False,
        types=(bool,),
        doc="compile the training step with XLA where it can be: one GPU, no augmentation policy, not deterministic",
    )
    deterministic: bool = key(
        False, types=(bool,), doc="a GPU's runs too repeat to the bit, and take longer; a CPU's always repeat"
    )
    shards: int = key(
        1,
        types=(int,),
        low=1,
        high=64,
        doc=(
            "parts of each batch that one CPU computes side by side, a core each, in place of all cores sharing every "
            "operation: for networks so small that sharing costs more than it gains. 1 with batch normalisation"
        ),
    )


@dataclasses.dataclass(frozen=True)
class Fallback:
    data: str = key("", types=(str,), doc="embedded data set used, and announced, where data.name cannot be had")
    train: dict[str, Any] = dataclasses.field(default_factory=dict)  # keys of [train] that differ then
    augment: dict[str, Any] = dataclasses.field(default_factory=dict)  # likewise of [augment]


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked recipe.

    `recipe` is its name, `fallback_for` the data set that the fallback stands in for, or None, and `notes` what the
    given options changed besides themselves, a line each.
    """

    recipe: str
    data: Data
    model: Model
    train: Train
    finetune: Finetune
    features: Features
    augment: Augment
    devices: Devices
    fallback: Fallback
    fallback_for: str | None = None
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def as_tables(self) -> dict[str, dict[str, Any]]:
        """The recipe as TOML tables, every key written out."""
        fallback = self.fallback
        tables = {section: dataclasses.asdict(getattr(self, section)) for section in SECTIONS}
        tables["model"] = {"name": self.model.name, **self.model.options}
        tables["fallback"] = {"data": fallback.data, **fallback.train, **fallback.augment} if fallback.data else {}
        return {name: table for name, table in tables.items() if table}

    def as_toml(self) -> str:
        return tomli_w.dumps(self.as_tables())


SECTIONS: dict[str, type] = {
    "data": Data,
    "model": Model,
    "train": Train,
    "finetune": Finetune,
    "features": Features,
    "augment": Augment,
    "devices": Devices,
    "fallback": Fallback,
}
