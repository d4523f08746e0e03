"""Features of a frozen backbone: computed once, kept in the cache, and trained on in place of the images."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerascls.data.dataset import Split, in_batches
from kerascls.features.backbone import folded
from kerascls.features.engines import ENGINES, engine_versions
from kerascls.system.cache import Entry, make_room
from kerascls.system.memory import check, empty, parts
from kerascls.system.status import doing

CHUNK = 32  # images a call: ResNet50 is no faster with more (2 cores). What a view draws depends on it
CHECKED = 8  # images on which bfloat16 is held against float32
NEAR = 0.99  # the least cosine that is taken without a word; MobileNet and ResNet50 have 0.9998
_FORMAT = 1  # of an entry: count it up where the same key comes to mean other rows


# Extraction


@dataclasses.dataclass
class Extractor:
    """Computes features of images by the frozen part of a model, or takes them from the cache.

    Attributes:
        body: `split_model`'s, images `(batch, *image_shape)` in [0, 255] to features.
        precision: "float32", or "bf16": `folded`.
        policy, seed: what views after the first are drawn by.
        canvas, cache_mb: as in the recipe's [data]; what they are drawn from.
        engine: "tensorflow" or "openvino".
        check: called after every chunk; it may raise.
        computed, reused: rows so far.
        seconds: spent so far.
        cosine: the smallest between bfloat16 and float32 features of up to CHECKED images; None in float32, or where
            nothing was computed.
    """

    body: Any
    precision: str
    policy: list[dict[str, Any]]
    seed: int
    canvas: tuple[int, ...] = ()
    cache_mb: int = 0
    engine: str = "tensorflow"
    check: Callable[[], None] = lambda: None
    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    cosine: float | None = None

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.body.to_json().encode())
        for weight in self.body.weights:
            digest.update(np.ascontiguousarray(weight.numpy()))
        self.weights = digest.hexdigest()
        self.plain: Callable | None = None
        self.contents: dict[int, tuple[Split, str]] = {}

    def features(self, split: Split, what: str, views: int = 1) -> Split:
        """`split` with features in place of images.

        Args:
            what: names the split for people.
            views: 1 for the images as they are; else that and `views - 1` drawn by the policy.

        Returns:
            A Split whose images are float32 `(views * n, *feature_shape)`, the first view's rows first; its labels and
            positions are repeated likewise.
        """
        from kerascls.data.batches import on_canvas

        begin = time.perf_counter()
        shape = (len(split), *self.body.output_shape[1:])
        rows = empty((views, *shape), np.float32)
        about = {"what": what, "images": len(split)}
        source = split
        for view, key in enumerate(self.keys(split, views)):
            entry = Entry.of(key)
            with entry.locked():
                if entry.complete:
                    self.reused += len(split)
                else:
                    if view and source is split:
                        source = on_canvas(split, self.canvas, self.cache_mb)
                    self.extract(entry, source, view, shape, key | about)
                    self.computed += len(split)
                rows[view] = entry.read(shape)
        self.seconds += time.perf_counter() - begin
        labels, positions = np.tile(split.labels, views), np.tile(split.positions, views)
        return Split(rows.reshape(-1, *shape[1:]), labels, positions)

    def keys(self, split: Split, views: int) -> list[dict[str, Any]]:
        """Of each view, all that its features depend on."""
        if id(split) not in self.contents:
            self.contents[id(split)] = split, _content(split)  # with the split, whose id another could have later
        same = {
            "format": _FORMAT,
            "content": self.contents[id(split)][1],
            "weights": self.weights,
            "precision": self.precision,
            "versions": engine_versions(self.engine),
        }
        drawn = {"policy": self.policy, "seed": self.seed, "canvas": list(self.canvas)}
        return [same | (drawn if view else {}) | {"view": view} for view in range(views)]

    def reserve(self, wanted: Sequence[tuple[Split, int]]) -> None:
        """Makes room in the cache and in memory for all that a training wants, before any of it is computed.

        Asked for one after another, the views of one training would push each other out of the cache.

        Args:
            wanted: splits, and how many views of each.

        Raises:
            DataError, OutputError: there is none.
        """
        size = sum(4 * views * len(split) * math.prod(self.body.output_shape[1:]) for split, views in wanted)
        held = sum(split.images.nbytes for split, _ in wanted if not split.streamed)
        check("Features", size, "Lower features.views, or leave it out.", held)
        make_room(size, *(Entry.of(key) for split, views in wanted for key in self.keys(split, views)))

    def extract(self, entry: Entry, source: Split, view: int, shape: tuple[int, ...], key: dict[str, Any]) -> None:
        """Computes the rows that `entry` lacks, in whole chunks, each kept as soon as it is there."""
        import tensorflow as tf

        compute = self.drawn(source.images.shape[1:]) if view else self.forward()
        with entry.appending(shape, key, CHUNK) as (file, done):
            if self.precision == "bf16" and self.cosine is None:
                self.compare(source)
            what = f"features of {key['what']}" + (f", view {view + 1}" if view else "")
            with doing(what, len(source), done=done) as progress:
                for chunk, images in enumerate(in_batches(source.images, CHUNK, done), done // CHUNK):
                    images = tf.constant(images)
                    given = (images, tf.constant([self.seed, view, chunk])) if view else (images,)
                    file.write(compute(*given).numpy().tobytes())
                    progress.step(len(images))
                    self.check()

    def forward(self) -> Callable:
        """Images, a uint8 or float32 tensor, to features, float32; on the engine, made once."""
        if self.plain is None:
            self.plain = self.by_openvino() if self.engine == "openvino" else self.by_tensorflow()
        return self.plain

    def by_tensorflow(self) -> Callable:
        import tensorflow as tf

        from kerascls.formats.graph import frozen

        graph = frozen(folded(self.body) if self.precision == "bf16" else self.body)
        return lambda images: tf.cast(graph(tf.cast(images, tf.float32))[0], tf.float32)

    def by_openvino(self) -> Callable:
        """OpenVINO folds batch normalisation by itself."""
        import openvino
        import tensorflow as tf

        from kerascls.formats.openvino import to_openvino

        precision = "bf16" if self.precision == "bf16" else "f32"  # else bfloat16 wherever the processor has it
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(to_openvino(self.body), "CPU", options)
        return lambda images: tf.constant(compiled(tf.cast(images, tf.float32).numpy())[0], tf.float32)

    def drawn(self, image_shape: tuple[int, ...]) -> Callable:
        """`forward` of images that the policy has drawn, by a seed of (seed, view, chunk)."""
        import tensorflow as tf

        from kerascls.augmentation.policy import apply_policy

        @tf.function(
            input_signature=[tf.TensorSpec((None, *image_shape), tf.uint8), tf.TensorSpec((3,), tf.int32)],
            autograph=False,
        )
        def draw(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            own = tf.random.experimental.stateless_fold_in(seed[:2], seed[2])
            labels = tf.zeros((tf.shape(images)[0], 1))
            return apply_policy(self.policy, images, labels, own)[0]

        forward = self.forward()
        return lambda images, seed: forward(draw(images, seed))

    def compare(self, source: Split) -> None:
        """How near bfloat16 comes to float32, by the first images."""
        import tensorflow as tf

        images = tf.constant(source.images[np.arange(min(CHECKED, len(source)))])
        near = self.forward()(images).numpy().reshape(len(images), -1).astype(np.float64)
        true = self.body(tf.cast(images, tf.float32), training=False).numpy().reshape(len(images), -1)
        norms = np.linalg.norm(near, axis=1) * np.linalg.norm(true.astype(np.float64), axis=1)
        self.cosine = float(np.min(np.sum(near * true, axis=1) / np.maximum(norms, 1e-30)))

    def told(self) -> str:
        """One line for people."""
        rate = f", {self.computed / self.seconds:,.0f} images/s" if self.computed else ""
        far = self.cosine is not None and self.cosine < NEAR
        near = f", cosine to float32 at least {self.cosine:.4f}" if self.cosine is not None else ""
        how = f"{self.precision} features by {ENGINES[self.engine]}"
        return (
            f"{how} of {self.computed + self.reused:,} images, {self.reused:,} from the cache: "
            f"{self.seconds:.1f} s{rate}{near}"
            + (". That is far off: train with features.precision = float32 too." if far else "")
        )

    def report(self) -> dict[str, Any]:
        """For manifest.json."""
        told: dict[str, Any] = {"precision": self.precision, "engine": self.engine}
        told |= {"computed": self.computed, "from_cache": self.reused}
        told["seconds"] = round(self.seconds, 3)
        if self.computed:
            told["images_per_second"] = round(self.computed / self.seconds, 1)
        if self.cosine is not None:
            told["cosine_min"] = self.cosine
        return told


def _content(split: Split) -> str:
    """SHA-256 of a split's images in their order: of the files and the rule that they are read by, or of the pixels."""
    if split.origin is not None:
        files = split.origin
        digest = hashlib.sha256(repr((files.image_shape, files.background, files.resize)).encode())
        digest.update(b"".join(files.contents))
    else:
        digest = hashlib.sha256(repr(split.images.shape).encode())
        for images in parts(split.images):
            digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()
