"""Named data sets: `datasets/<name>.py` is the data set `<name>`; a user's `./my_data.py` works the same."""

from kerascls.data.dataset import Dataset as Dataset
from kerascls.data.dataset import Split as Split
