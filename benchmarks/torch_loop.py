"""The articles' trainings as one writes them in PyTorch: Dataset, DataLoader, and the loop of five lines.

`python -m benchmarks.torch_loop NAME DATA` prints what `keras_loop` prints. Images become tensors one by one, as by
torchvision's ToTensor and Normalize, but straight from arrays, which is faster than by way of Pillow; those of `avp`
are read from files and warped by Pillow, as torchvision does. torchvision itself is not needed.
"""

import itertools
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.plan import TRAININGS
from benchmarks.trainings import loop_arguments
from kerascls.recipes.load import load_config
from kerascls.recipes.schema import Train

CLASSES = ("alien", "predator")


def network(name: str) -> nn.Module:
    """The article's network, without the softmax, which the loss brings."""
    if name == "mnist":
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(100, 10)),
        )
    if name == "avp":
        backbone = resnet50().requires_grad_(False)
        return nn.Sequential(backbone, nn.Linear(2048, 128), nn.ReLU(), nn.Linear(128, 2))
    filters, kernel, side = {
        "cifar_cnn": ((6, 16), 3, 6),
        "cifar_lenet": ((6, 16), 5, 5),
        "cifar_cnn_bn": ((16, 32), 5, 5),
    }[name]
    stack, channels = [], 3
    for count in filters:
        stack += [nn.Conv2d(channels, count, kernel), nn.ReLU(), nn.MaxPool2d(2)]
        if name == "cifar_cnn_bn":
            stack.append(nn.BatchNorm2d(count))
        channels = count
    dense = [nn.Linear(channels * side * side, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*stack, nn.Flatten(), *dense)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He, Zhang, Ren, Sun, 2015); the stride is in the 3x3."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *(convolution(channels, width, 1), nn.ReLU(inplace=True)),
            *(convolution(width, width, 3, stride), nn.ReLU(inplace=True)),
            convolution(width, out, 1),
        )
        whole = stride == 1 and channels == out
        self.shortcut = nn.Identity() if whole else convolution(channels, out, 1, stride)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def convolution(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(out))


def resnet50() -> nn.Module:
    """ResNet50 up to its 2,048 pooled features, with random weights: 23,508,032 parameters."""
    stack = [convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)]
    channels = 64
    for blocks, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for i in range(blocks):
            stack.append(Bottleneck(channels, width, stride if i == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Arrays(Dataset):
    """uint8 images as float tensors (channels, height, width), scaled to [low, 1]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, low: float):
        self.images, self.labels, self.low = images, labels.tolist(), low

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1).float().div_(255)
        return image.mul_(1 - self.low).add_(self.low), self.labels[i]


class Folder(Dataset):
    """Images of `folder`/CLASS as 224x224 tensors, normalised by ImageNet's; `augment` as the article."""

    def __init__(self, folder: Path, augment: bool):
        self.files = [(file, i) for i, name in enumerate(CLASSES) for file in sorted((folder / name).iterdir())]
        self.augment = augment
        self.mean, self.std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        from PIL import Image

        file, label = self.files[i]
        image = Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        if self.augment:
            scale, slant = random.uniform(0.8, 1.2), math.tan(math.radians(random.uniform(-10, 10)))
            centre = 223 / 2
            moved = centre - centre / scale
            # From a pixel of the result to where it is read: the inverse of slanting and scaling about the centre.
            inverse = (1 / scale, -slant / scale, moved + slant * centre / scale, 0, 1 / scale, moved)
            image = image.transform((224, 224), Image.Transform.AFFINE, inverse)
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
        return (pixels - self.mean) / self.std, label


def examples(name: str, data: Path) -> tuple[Dataset, Dataset]:
    """Training and test examples."""
    if name == "avp":
        return Folder(data / "train", augment=True), Folder(data / "validation", augment=False)
    loaded = np.load(data)
    low = 0.0 if name in ("mnist", "cifar_cnn") else -1.0
    return tuple(Arrays(loaded[f"x_{split}"], loaded[f"y_{split}"], low) for split in ("train", "test"))


def optimizer(train: Train, model: nn.Module) -> torch.optim.Optimizer:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if train.optimizer == "sgd":
        return torch.optim.SGD(trainable, train.learning_rate, momentum=train.momentum)
    return torch.optim.Adam(trainable, train.learning_rate, eps=train.epsilon)


def accuracy(model: nn.Module, test: Dataset, batch_size: int = 100) -> float:
    model.eval()
    with torch.no_grad():
        batches = DataLoader(test, batch_size=batch_size)
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / len(test)


def run(
    name: str, data: Path, seed: int, epochs: int | None, block: int | None, until: float | None, least: int
) -> dict:
    train, warm_up = load_config(TRAININGS[name].article).train, TRAININGS[name].warm_up
    epochs = epochs or train.epochs
    torch.manual_seed(seed)
    random.seed(seed)
    model = network(name)
    training, test = examples(name, data)
    loader = DataLoader(training, train.batch_size, shuffle=True)
    descent, loss_of = optimizer(train, model), nn.CrossEntropyLoss()
    fit_from = time.perf_counter()
    found = {"parameters": sum(parameter.numel() for parameter in model.parameters())}

    def learn(batches) -> float:
        """One pass over `batches`; the seconds that it took."""
        model.train()  # the frozen backbone's batch normalisation too, as in the article: it takes batch moments
        begin = time.perf_counter()
        for images, labels in batches:
            descent.zero_grad()
            loss = loss_of(model(images), labels)
            loss.backward()
            descent.step()
        return time.perf_counter() - begin

    if block:
        endless = itertools.chain.from_iterable(itertools.repeat(loader))
        learn(itertools.islice(endless, warm_up))
        seconds = learn(itertools.islice(endless, block))
        whole = {"steps_of_all": epochs * len(loader), "images_of_all": epochs * len(training)}
        return {**found, **whole, "fit_seconds": time.perf_counter() - fit_from, "seconds": seconds, "steps": block}

    seconds_of, accuracies = [], []
    while len(seconds_of) < epochs:
        seconds_of.append(learn(loader))
        begin = time.perf_counter()
        accuracies.append(accuracy(model, test))
        if TRAININGS[name].validated:
            seconds_of[-1] += time.perf_counter() - begin
        if until and len(seconds_of) >= least and accuracies[-1] >= until:
            break
    found |= {"fit_seconds": time.perf_counter() - fit_from, "images": len(training)}
    return {**found, "epoch_seconds": seconds_of, "epoch_accuracies": accuracies}


if __name__ == "__main__":
    print(json.dumps(run(**loop_arguments())))
