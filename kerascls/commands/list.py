"""`kerascls list`."""

import json

import click

from kerascls.commands._command import Command


@click.command(
    "list",
    cls=Command,
    examples=(
        "kerascls list",
        "kerascls list | grep resnet",
    ),
)
def command() -> None:
    """List recipes, models, data sets and augmentations."""
    from kerascls.recipes.catalog import (
        configs_dir,
        dataset_files,
        first_sentence,
        model_files,
        policy_options,
        policy_sentences,
        recipe_names,
    )

    recipes = {name: configs_dir() / f"{name}.toml" for name in recipe_names()}
    for title, files in (("recipes", recipes), ("models", model_files()), ("data sets", dataset_files())):
        click.echo(f"{title}:")
        for name, path in files.items():
            click.echo(f"  {name:<28}{first_sentence(path)}")
    click.echo(
        f"  {'tfds:NAME':<28}Any image-classification data set of TensorFlow Datasets.\n"
        f"  {'FILE.npz':<28}Arrays x_train, y_train, x_test, y_test of your own."
    )
    click.echo("augmentations, for augment.policy:")
    for name, sentence in policy_sentences().items():
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in policy_options()[name].items())
        click.echo(f"  {name:<28}{sentence}\n  {'':<26}{options}")
