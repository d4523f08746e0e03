"""Named data sets: `datasets/<name>.py` is the data set `<name>`; a user's `./my_data.py` works the same."""

from kerascls.data.loading import Dataset as Dataset
from kerascls.data.loading import Split as Split
