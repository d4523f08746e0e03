"""Commands. `commands/<name>.py` is `kerascls <name>`: it parses, calls one function, and prints.

Nothing heavy is imported before a command runs. Results go to stdout, progress and warnings to stderr.
"""
