"""How a folder of images is understood, by names: splits, classes, a folder above the data, what systems leave."""

import itertools
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error
from PIL import Image

from kerascls.data import loading
from kerascls.errors import DataError
from kerascls.inference.evaluate import bind_classes
from kerascls.recipes.schema import Data

SHAPE = (8, 8, 3)
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def root(tmp_path):
    """A function that writes an image under each path of a folder `d`; none is like another."""
    numbers = itertools.count(1)

    def write(*paths):
        for path in paths:
            (tmp_path / "d" / path).parent.mkdir(parents=True, exist_ok=True)
            image = np.random.default_rng(next(numbers)).integers(0, 256, SHAPE, np.uint8)
            Image.fromarray(image).save(tmp_path / "d" / path, "PNG")
        return tmp_path / "d"

    return write


def load(folder, **more):
    return loading.load_dataset(str(folder), image_shape=SHAPE, **more)


def counts(dataset):
    return {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()}


def refused(folder, **more):
    with pytest.raises(DataError) as error:
        load(folder, **more)
    return str(error.value).replace(str(folder), "d")


# Splits


@pytest.mark.parametrize(
    "train, validation, test",
    [
        ("Training", "Validation", "Testing"),
        ("training_set", "valid_set", "test_set"),
        ("Train_Data", "Val_Data", "Test_Data"),
        ("TRAIN", "DEV", "EVALUATION_IMAGES"),
        ("train-images", "eval", "holdout"),
        ("TrainImages", "ValImages", "TestImages"),
        ("trainset", "devset", "testset"),
        ("01 train", "02 validate", "03 test"),
        ("train2017", "val2017", "test2017"),
        ("seg_train", "seg_val", "seg_test"),
        ("images.trn", "images.valid", "images.tst"),
        ("mri training (cropped)", "mri development (cropped)", "mri hold-out (cropped)"),
    ],
)
def test_splits_go_by_any_usual_name(root, train, validation, test):
    meant = {train: "train", validation: "validation", test: "test"}
    if test == "EVALUATION_IMAGES":
        meant = {train: "train", test: "validation"}
    folder = root(*(f"{name}/{cls}/{i}.png" for name in meant for cls in "ab" for i in range(2)))
    assert counts(load(folder)) == dict.fromkeys(meant.values(), [2, 2])


def test_splits_of_a_usual_name_are_not_split_again(root, capsys):
    root(*(f"{name}/{cls}/{i}.png" for name in ("Training", "Testing") for cls in "ab" for i in range(2)))
    line = one_line_error("split", "d", "parts", capsys=capsys)
    assert line == "Error: Folder d is split already: it has test, train."


def test_two_folders_for_one_split_are_refused(root):
    folder = root(*(f"{name}/{cls}/1.png" for name in ("train", "val", "valid_set") for cls in "ab"))
    assert refused(folder) == "Folder d has val and valid_set, which mean the same, validation. Join them."


def test_splits_of_names_that_mean_nothing_are_refused_with_the_rename(root, capsys):
    folder = root(*(f"{name}/{cls}/1.png" for name in ("first", "second") for cls in ("cat", "dog")))
    said = (
        "Folder d has first and second, each with cat and dog and no images of its own. If they are splits, rename "
        "them train, validation and test. If first and second are the classes, say so: "
    )
    assert refused(folder) == said + """overrides={"data": {"classes": ["first", "second"]}}"""
    assert one_line_error("split", "d", "parts", capsys=capsys) == f"Error: {said}--classes first,second"
    assert counts(load(folder, classes=["second", "first"])) == {"all": [2, 2]}
    assert here("split", "d", "parts", "--classes", "first,second", capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    "names", [("test", "train"), ("invalid", "valid"), ("bus", "training"), ("dev", "eval", "prod")]
)
def test_classes_may_be_called_as_splits_are(root, names):
    folder = root(*(f"{name}/{i}.png" for name in names for i in range(3)), f"{names[-1]}/more/1.png")
    dataset = load(folder)
    assert dataset.class_names == names and list(dataset.splits) == ["all"]
    assert counts(dataset)["all"] == [3] * (len(names) - 1) + [4]
    assert dataset.notes == (
        (
            "test and train are taken for classes, since images lie in them. If they are splits (test, train), put "
            "their images into one folder a class",
        )
        if names == ("test", "train")
        else ()
    )


def test_a_class_of_folders_that_is_called_as_a_split_can_be_stated(root):
    folder = root("train/steam/1.png", "train/diesel/1.png", "bus/1.png", "car/1.png")
    assert refused(folder).endswith(
        """If bus, car and train are the classes, say so: overrides={"data": {"classes": ["bus", "car", "train"]}}"""
    )
    assert counts(load(folder, classes=["bus", "car", "train"])) == {"all": [1, 1, 2]}


def test_what_lies_beside_splits_is_to_be_moved(root):
    folder = root("seg_train/a/1.png", "seg_train/b/1.png", "seg_test/a/1.png", "seg_test/b/1.png", "seg_pred/1.png")
    assert "or class folders alone. Move seg_pred elsewhere. If " in refused(folder)


def test_a_stray_image_beside_class_folders_makes_no_class_of_a_split(root):
    folder = root(*(f"{name}/{cls}/1.png" for name in ("train", "test") for cls in "ab"), "train/sample.png")
    dataset = load(folder)
    assert counts(dataset) == {"train": [1, 1], "test": [1, 1]}
    assert dataset.skipped == (("train/sample.png", "lies in no class folder"),)


def test_folders_without_images_beside_splits_are_left_out(root):
    folder = root(*(f"{name}/{cls}/1.png" for name in ("train", "test") for cls in "ab"))
    (folder / "annotations").mkdir()
    (folder / "annotations" / "1.xml").write_text("<xml/>")
    dataset = load(folder)
    assert counts(dataset) == {"train": [1, 1], "test": [1, 1]}
    assert dataset.skipped == (("annotations", "has no images"),)
    root("extra/a/1.png")
    assert refused(folder).startswith("Folder d has test and train beside annotations and extra. Expected train, ")


# A folder one level too high


def test_the_folder_above_the_data_names_the_inner_one(root, capsys):
    root("Train_Data/cat/1.png", "Train_Data/cat/2.png", "Train_Data/dog/1.png", "Layer_Outputs/1.png", "Model/1.png")
    line = one_line_error("train", "folder_scratch", "--data", "d", capsys=capsys)
    assert line.startswith(
        "Error: Folder d has Train_Data beside Layer_Outputs and Model. Expected train, validation and test, each "
        "with class folders, or class folders alone. Train_Data has no images of its own but folders cat (2) and dog "
        "(1): did you mean d/Train_Data?"
    )


def test_a_chain_of_single_folders_names_the_last(root, capsys):
    root("one/flower_photos/rose/1.png", "one/flower_photos/tulip/1.png", "one/flower_photos/tulip/2.png")
    for command in (("show", "d"), ("split", "d", "parts"), ("train", "d")):
        assert one_line_error(*command, capsys=capsys) == (
            "Error: Folder d has images of one class alone, one. one/flower_photos has no images of its own but "
            "folders rose (1) and tulip (2): did you mean d/one/flower_photos?"
        )
    assert counts(load("d/one/flower_photos")) == {"all": [1, 2]}


def test_classes_of_folders_alone_are_refused_with_what_may_be_meant(root):
    folder = root("pets/cat/1.png", "pets/cat/2.png", "pets/dog/1.png", "plots/loss/1.png")
    (folder / "docs").mkdir()
    (folder / "docs" / "a.txt").write_text("hello")
    assert refused(folder) == (
        "Folder d: pets has no images of its own but folders cat (2) and dog (1): did you mean d/pets? If pets and "
        """plots are the classes, say so: overrides={"data": {"classes": ["pets", "plots"]}}"""
    )
    assert counts(load(folder, classes=["pets", "plots"])) == {"all": [3, 1]}


def test_an_empty_class_folder_is_told_before_stray_files(root):
    folder = root("train/a/1.png", "train/b/1.png", "val/a/1.png", *(f"val/{i}.png" for i in range(12)), "0.png")
    (folder / "val" / "b").mkdir()
    for name in "cde":
        (folder / "val" / name).mkdir()
    assert [file for file, _ in load(folder).skipped[:5]] == ["val/b", "val/c", "val/d", "val/e", "0.png"]


def test_splits_one_level_below_are_named(root):
    inside = [f"pets/{split}/{cls}/1.png" for split in ("Training", "Testing") for cls in ("cat", "dog")]
    said = "Folder d: pets has folders Testing (2) and Training (2), as splits are: did you mean d/pets?"
    folder = root(*inside)
    assert refused(folder) == said
    root("plots/1.png")
    assert refused(folder) == said


def test_a_level_too_high_within_splits_is_refused(root):
    folder = root(*(f"{split}/pets/{cls}/1.png" for split in ("train", "test") for cls in ("cat", "dog")))
    assert refused(folder) == (
        "Folder d has images of one class alone, pets. test/pets has no images of its own but folders cat (1) and dog "
        "(1). If those are the classes, move them up into test."
    )


def test_files_of_a_class_may_lie_in_folders_of_its_own(root):
    deep = ["a/images/1.png", "a/images/2.png", "b/images/1.png"]  # as Tiny ImageNet's do
    assert counts(load(root(*deep))) == {"all": [2, 1]}


def test_classes_of_splits_may_be_of_folders_alone(root):
    patients = [f"{split}/{cls}/patient{i}/1.png" for split in ("train", "test") for cls in "ab" for i in range(2)]
    assert counts(load(root(*patients))) == {"train": [2, 2], "test": [2, 2]}


def test_some_classes_of_folders_alone_are_told(root):
    folder = root("a/1.png", "b/cat/1.png", "b/dog/1.png")
    dataset = load(folder)
    assert counts(dataset) == {"all": [1, 2]}
    assert [note.replace(str(folder), "d") for note in dataset.notes] == [
        "b has no images of its own but folders cat (1) and dog (1): all are of class b. If those are the classes: d/b"
    ]


def test_a_class_folder_in_place_of_the_data_names_the_folder_above(root, capsys):
    root("a/1.png", "b/1.png")
    line = one_line_error("train", "folder_scratch", "--data", "d/a", capsys=capsys)
    assert line.endswith("Received: 1.png. If a is one class of several, name the folder above: d")


# Names


def test_names_that_look_alike_are_one_class(root, capsys):
    folder = root(f"{NFC}/1.png", f"{NFD}/1.png", f"{NFD}/2.png", "thé/1.png")
    dataset = load(folder)
    assert dataset.class_names == (NFC, "thé") and counts(dataset) == {"all": [3, 1]}
    assert loading.load_config_data(Data(str(folder), classes=["thé", NFD], image_shape=list(SHAPE))).class_names == (
        "thé",
        NFC,
    )
    classes = ("--classes", f"{NFD},thé", "--train", 1, "--validation", 0)
    assert here("split", "d", "parts", *classes, capsys=capsys)[0] == 0
    assert [path.name for path in (folder.parent / "parts" / "train").glob("*/*")] == ["1.png"] * 2
    assert sorted(path.name for path in (folder.parent / "parts" / "test" / NFC).iterdir()) == ["1.png", "2.png"]


def test_forms_of_a_name_are_one_class_across_splits_and_in_scoring(root):
    folder = root(
        *(f"train/{name}/{i}.png" for name in (NFC, "b") for i in range(2)), f"val/{NFD}/1.png", "val/b/1.png"
    )
    dataset = load(folder)
    assert dataset.class_names == ("b", NFC) and counts(dataset) == {"train": [2, 2], "validation": [1, 1]}
    bound = bind_classes(dataset, (NFD, "b"))  # of a run that was trained before
    assert counts(bound) == {"train": [2, 2], "validation": [1, 1]}
    assert bound.splits["train"].labels.tolist() == [1, 1, 0, 0]


def test_forms_of_a_name_are_one_in_arrays(tmp_path):
    def save(names):
        x, y = np.zeros((4, *SHAPE), np.uint8), np.array([0, 1, 0, 1])
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y, class_names=np.array(names))

    save([NFD, "b"])
    assert loading.load_dataset(str(tmp_path / "a.npz")).class_names == (NFC, "b")
    save([NFD, NFC])
    with pytest.raises(DataError, match="class name twice"):
        loading.load_dataset(str(tmp_path / "a.npz"))


LITTER = (
    "@eaDir/x/SYNOPHOTO_THUMB_M.jpg #recycle/old.png $RECYCLE.BIN/$R1.png a/@eaDir/0.png a/.AppleDouble/0.png "
    "__MACOSX/a/._0.png __macosx/1.png lost+found/1.png .ipynb_checkpoints/0.png a/.ipynb_checkpoints/0.png "
    "@__thumb/0.png b/@__Thumb/0.png @Recycle/1.png a/._0.png .DS_Store a/.ds_store a/THUMBS.DB a/Desktop.INI "
    ".Trash-1000/files/0.png .Spotlight-V100/1.png"
).split() + ["System Volume Information/1.png", "a/Icon\r", "Temporary Items/1.png", "SYSTEM VOLUME INFORMATION/2.png"]


def test_what_systems_leave_is_passed_over_everywhere(root, digits_run, capsys):
    root("a/0.png", "b/0.png", "b/1.png", *LITTER)
    dataset = load("d")
    assert dataset.class_names == ("a", "b") and counts(dataset) == {"all": [1, 2]} and dataset.skipped == ()
    code, out, err = here("predict", digits_run, "d", "--json", capsys=capsys)
    assert code == 0 and len(out.splitlines()) == 3 and "assed over" not in err
    code, out, err = here("split", "d", "parts", "--train", 1, "--validation", 0, capsys=capsys)
    assert code == 0 and "left out" not in err and out.splitlines()[-2].split() == ["2", "0", "1", "all"]


# Scoring


def test_a_folder_of_one_class_or_some_is_scored_but_not_trained_on(root, digits_run, capsys):
    root(*(f"3/{i}.png" for i in range(5)))
    code, out, _ = here("evaluate", digits_run, "--data", "d", "--json", capsys=capsys)
    scores = json.loads(out)
    assert code == 0 and scores["examples"] == 5 and scores["per_class"]["3"]["support"] == 5
    code, out, _ = here("predict", digits_run, "--data", "d", "--count", 2, "--split", "train", capsys=capsys)
    assert code == 0 and out.count("(is 3)") == 2
    assert "one class alone, 3. A classifier needs at least two." in one_line_error("train", "d", capsys=capsys)
    root("7/1.png", "d/1.png")
    line = one_line_error("evaluate", digits_run, "--data", "d", capsys=capsys)
    assert "d has 1 class that the run does not know: d. The run knows 0, 1, 2" in line
    assert line.endswith("A model file without names is given them by --class-names FILE.")


def test_a_folder_whose_splits_lack_classes_is_scored(root, digits_run, capsys):
    root("train/3/1.png", "train/3/2.png", "test/3/1.png", "test/4/1.png")
    code, out, _ = here("evaluate", digits_run, "--data", "d", "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["examples"] == 2
    assert "train/ has no image of 4, which other splits have" in one_line_error("train", "d", capsys=capsys)


# What is no folder of images, on the command line


@pytest.mark.parametrize(
    "name, content, said",
    [
        (
            "labels.csv",
            b"file,label\n1.png,cat\n",
            "is a table, and labels in tables are not read. Put the images into ",
        ),
        ("labels.xlsx", b"PK\3\4", "is a table"),
        ("photos.zip", b"PK\3\4" + bytes(50), "is an archive (ZIP). Unpack it, and name the folder."),
        ("photos.tar", bytes(257) + b"ustar" + bytes(250), "is an archive (tar). Unpack it"),
        ("photos.tgz", b"\x1f\x8b\x08", "is an archive (gzip). Unpack it"),
        ("photos", b"7z\xbc\xaf\x27\x1c", "is an archive (7z). Unpack it"),
        ("1.jpg", b"\xff\xd8\xff\xe0" + bytes(20), "is one image (JPEG). Expected a folder with one folder a class."),
        ("1.heic", b"\0\0\0\x18ftypheic" + bytes(20), "is one image (HEIC). Expected"),
        (
            "data.mat",
            b"MATLAB",
            "is a file (.mat) that is not read. Expected a folder with one folder a class, FILE.npz",
        ),
    ],
)
def test_a_file_that_is_no_data_is_named_with_what_to_do(name, content, said, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    assert f"data.name: {name} {said}" in one_line_error("train", "folder_scratch", "--data", name, capsys=capsys)
    assert f"Error: {name} {said}" in one_line_error("show", name, capsys=capsys)
    assert f"Error: {name} {said}" in one_line_error("split", name, "parts", capsys=capsys)


def test_a_folder_that_is_not_there_is_told_with_the_nearest(root, tmp_path, capsys):
    root("a/1.png")
    (tmp_path / "d").rename(tmp_path / "signs")
    assert one_line_error("train", "sings", capsys=capsys).startswith(
        "Error: No recipe is named 'sings', nor is there such a folder. Did you mean signs? "
    )
    assert (
        one_line_error("train", "./sings/", capsys=capsys) == "Error: No such folder: ./sings/. Did you mean ./signs?"
    )
    for command in (
        ("train", "mnist_cnn", "--data", "sings"),
        ("train", "--data", "sings"),
        ("show", "sings"),
    ):
        line = one_line_error(*command, capsys=capsys)
        assert "no data set or folder is named 'sings'. Did you mean signs?" in line
    assert one_line_error("split", "sings", "parts", capsys=capsys) == (
        "Error: Folder sings cannot be read: No such file or directory. Did you mean signs?"
    )
    assert one_line_error("train", "articles/mnist_cn", capsys=capsys).startswith(
        "Error: No recipe is named 'articles/mnist_cn', nor is there such a folder."
    )


def test_a_folder_in_the_place_of_a_recipe_or_behind_it_is_understood(root, capsys):
    root("a/1.png")
    line = one_line_error("train", "d", capsys=capsys)
    assert "one class alone, a" in line and one_line_error("train", "--data", "d", capsys=capsys) == line
    for command in (("train", "folder_scratch", "d"), ("show", "folder_scratch", "d")):
        code, _, err = here(*command, capsys=capsys)
        assert code == 2 and err.splitlines()[-1].endswith("argument (d). Data is named by --data d")
    for words in (("train", "--data", "digits"), ("train", "digits"), ("sweep", "digits")):
        code, _, err = here(*words, capsys=capsys)
        assert code == 2 and err.splitlines()[-1].endswith("as in `kerascls train mnist_cnn --data digits`.")
    sweep = ("sweep", "d", "--set", "train.epochs=1,2")
    assert "one class alone, a" in one_line_error(*sweep, capsys=capsys)
    assert "d is a folder, where a recipe is expected" in one_line_error("new", "mine", "--from", "d", capsys=capsys)


def test_a_table_beside_one_folder_of_images_is_told(root, capsys):
    root("images/1.png", "images/2.png")
    Path("d/labels.csv").write_text("1.png,cat\n2.png,dog\n")
    assert one_line_error("train", "d", capsys=capsys) == (
        "Error: Folder d has images of one class alone, images. A classifier needs at least two. labels.csv is not "
        "read: labels come from the names of folders."
    )


def test_a_folder_is_called_as_it_was_typed(root, tmp_path, capsys, monkeypatch):
    root("a/1.png", "b/1.png")
    (tmp_path / "signs").symlink_to("d")
    code, out, err = here("show", "signs/", capsys=capsys)
    assert code == 0 and out.startswith("signs (folder): ") and err == "drawn: signs.png\n"
    monkeypatch.chdir(tmp_path / "d")
    assert load(".").name == "d" and load("../signs").name == "signs"


def test_a_folder_is_shown_augmented_as_train_would(root, capsys):
    root(*(f"{cls}/{i}.png" for cls in "ab" for i in range(10)))
    code, out, err = here("show", "d", "--augmented", capsys=capsys)
    assert code == 0, err
    assert "images 224x224x3, 2 classes" in out and out.splitlines()[-1].split() == ["all", "16", "2", "2"]
    assert err.splitlines()[-1] == "drawn: d-augmented.png"
    code, out, err = here("show", "d", "--set", "data.image_shape=[16, 16, 1]", "--set", "data.test=0", capsys=capsys)
    assert code == 0 and "images 16x16x1, 2 classes" in out and out.splitlines()[-1].split() == ["all", "18", "2"]
    assert "--set changes keys of a recipe" in one_line_error("show", "digits", "--set", "data.test=0", capsys=capsys)


def test_classes_of_folders_alone_are_shown_where_they_are_stated(root, capsys):
    root("a/x/1.png", "a/y/1.png", "b/x/1.png", "b/y/1.png")
    line = one_line_error("show", "d", capsys=capsys)
    option = line.partition("say so: --set ")[2].strip("'")
    more = ("--set", "data.test=0", "--set", "data.validation=0")
    code, out, _ = here("show", "d", "--set", option, *more, capsys=capsys)
    assert code == 0 and out.splitlines()[-1].split() == ["all", "4"]


def test_the_guides_data_set_reads_labels_from_a_table(root, tmp_path, capsys):
    root(*(f"{i}.png" for i in range(6)))
    Path("labels.csv").write_text("file,class\n" + "".join(f"d/{i}.png,{'ab'[i % 2]}\n" for i in range(6)))
    guide = (REPOSITORY / "docs/guides/your-own-model-or-data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(# my_data\.py.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    Path("my_data.py").write_text(code)
    dataset = load("./my_data.py")
    assert dataset.class_names == ("a", "b") and counts(dataset) == {"train": [3, 3]}
    assert dataset.image_shape == SHAPE and dataset.splits["train"].labels.tolist() == [0, 1] * 3
