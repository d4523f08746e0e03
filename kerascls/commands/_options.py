"""Options and arguments that several commands share."""

import shlex

import click

data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Where TFDS keeps prepared data.  [default: $TFDS_DATA_DIR, else TFDS's own]"
)
names_option = click.option(
    "--class-names", metavar="FILE|A,B,...", help="Names of a model without a card: a,b,c, or a file of one a line."
)
range_option = click.option(
    "--pixel-range", metavar="LOW,HIGH", help="That such a model takes pixels in: 0,1 or -1,1.  [default: 0,255]"
)
trust_option = click.option(
    "--trust", is_flag=True, help="Load a SavedModel although its operations may reach files, network or Python."
)


def refuse_extra(context: click.Context) -> None:
    """Refuses what stands behind the recipe; usually it is data."""
    if context.args:
        word = shlex.quote(context.args[0])
        raise click.UsageError(f"Got unexpected extra argument ({context.args[0]}). Data is named by --data {word}")


def recipe_and_data(recipe: str | None, data: str | None) -> tuple[str, str | None]:
    """A folder in the place of a recipe, or without one, is trained on by the recipe `folder`. Other data needs one."""
    from kerascls.data.loading import is_data, is_folder
    from kerascls.recipes.catalog import is_recipe

    if recipe is not None and (is_recipe(recipe) or not is_data(recipe)):
        return recipe, data
    if recipe is not None and data is not None:
        raise click.UsageError(f"{recipe} is data: leave out --data, or name a recipe.")
    data = recipe or data
    if not is_data(data) or is_folder(data):
        return "folder", data
    raise click.UsageError(
        f"Missing argument 'RECIPE' to train on {data}, as in `kerascls train mnist_cnn --data {shlex.quote(data)}`."
    )


def parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise click.UsageError(f"--seeds takes different whole numbers, as in 0,1,2. Received: {text!r}")
    return seeds
