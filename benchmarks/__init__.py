"""Ours beside the plain ways, in turns within one run: `python -m benchmarks --help`.

    plan         what is compared, and the recipe that ours uses for each: the one place to name a new recipe
    measure      a child process, its seconds and peak memory; medians, extrapolation, ratios
    trainings    articles' trainings: ours against keras_loop.py and torch_loop.py
    files        naming image files: `kerascls predict` against model.predict in a loop
    epochs       one epoch of a small network: our pipeline and our fit against plainer ones
    table        writes the table of docs/results/benchmarks.md from results.json

What is timed runs in a process of its own, so that its memory and its start are its own, and whoever measures imports
neither TensorFlow nor PyTorch.
"""
