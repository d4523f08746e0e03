"""`python -m kerascls` is the command `kerascls`."""

from kerascls.cli import main

main()
