"""Starting TensorFlow without its noise, and saying what there is."""

import subprocess
import sys

from conftest import here

from kerascls import devices


def test_starting_writes_nothing_and_makes_ops_deterministic():
    program = (
        "from kerascls import devices; devices.start(); devices.start(); import tensorflow as tf; "
        "from tensorflow.python.framework import config; print(config.is_op_determinism_enabled(), tf.zeros(1).shape)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (process.stdout, process.stderr) == ("True (1,)\n", "")


def test_what_went_wrong_while_starting_is_shown():
    program = (
        "import os\nfrom kerascls.devices import _quiet_stderr\nwith _quiet_stderr():\n"
        "    os.write(2, b'the reason\\n')\n    raise SystemExit(3)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (3, "the reason\n")


def test_env_prints_versions_and_devices(capsys):
    code, out, _ = here("env", capsys=capsys)
    assert code == 0
    for key in ("python: ", "tensorflow: 2.21", "keras: 3.15", "kerascls: ", "device: "):
        assert key in out
    assert devices.describe()["deterministic"] is True
