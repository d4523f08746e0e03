"""JSON that others may have changed."""

import pytest

from kerascls.system.json_files import fault, only, read_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ('{"a": NaN}', "NaN is no finite number"),
        ("[1e999]", "1e999 is no finite number"),
        ("-Infinity", "-Infinity is no finite number"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 10_000, "4300 digits"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_what_is_no_json_is_a_value_error(text, reason):
    with pytest.raises(ValueError, match=reason):
        read_json(text)


def test_json_is_read():
    assert read_json(b'{"a": [1, 2.5, null, true, "\xc3\xa9"]}') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    ("value", "shape", "told"),
    [
        (3, int, None),
        (True, int, "it is 'True'"),
        (1, bool, "it is '1'"),
        (3, float, None),
        (3.0, int, "it is '3.0'"),
        (True, float, "it is 'True'"),
        (None, (int, None), None),
        ("", (int, None), "it is ''"),
        (False, (0, 1), "it is 'False'"),
        ("dark", ("dark", "light", None), None),
        ({}, ("dark", "light", None), "it is '{}'"),
        ([], [int], None),
        ([1, 2, "3"], [int], "2 is '3'"),
        ({}, [int], "it is '{}'"),
        ([], {"a": int}, "it is '[]'"),
        ({"a": 1, "b": "ignored"}, {"a": int}, None),
        ({}, {"a": int}, "it lacks a"),
        ({}, {"a?": int}, None),
        ({"a": None}, {"a?": int}, "a is 'None'"),
        ({"a": {"b": [{"c": 1}, {}]}}, {"a": {"b": [{"c": int}]}}, "it lacks a.b.1.c"),
        ("x" * 100, int, f"it is '{'x' * 60}'"),
    ],
)
def test_the_first_fault_of_a_shape_is_told(value, shape, told):
    assert fault(value, shape) == told


def test_only_the_keys_of_a_shape():
    assert only({"c": 3, "b": 2, "a": 1}, {"a": int, "b?": int, "d?": int}) == {"a": 1, "b": 2}
