"""YAML's traps are closed, and what is wrong has its place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.core.errors import UserError
from ftkit.recipe.nodes import find, plain
from ftkit.recipe.yaml_file import dump_yaml, parse


def read(text):
    faults = []
    root = parse(text, "f.yaml", faults)
    assert not faults
    return plain(root)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("+.5", 0.5),
        ("2.", 2.0),
        ("-.inf", -math.inf),
        ("-3", -3),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("1:30", "1:30"),
        ("2001-12-14", "2001-12-14"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        (".", "."),
        ("", None),
        ("~", None),
        ("Null", None),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written, value):
    found = read(f"a: {written}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_that_yaml_1_1_takes_for_booleans_are_text():
    assert read("on: 1\nno: 2\ny: 3") == {"on": 1, "no": 2, "y": 3}


def test_anchors_and_merge_keys_work_and_what_is_written_wins():
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 0}\nd: *a"
    assert read(text)["c"] == {"x": 0, "y": 2, "z": 4}
    assert read(text)["d"] == {"x": 1, "y": 2}


def test_every_value_has_its_place():
    root = parse("a:\n  b: [1, {c: x}]\n", "f.yaml", [])
    assert str(find(root, ["a", "b", 0]).at) == "f.yaml:2:7"
    assert str(find(root, ["a", "b", 1, "c"]).at) == "f.yaml:2:14"
    assert str(find(root, ["a", "b", 1, "c"]).key) == "f.yaml:2:11"
    assert str(find(root, ["a"]).key) == "f.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: the key 'a' is already at f.yaml:1:1; remove one"),
        ("a: !!str 5", "f.yaml:1:4: the tag '!!str'; recipes have no tags; remove it"),
        ("a: !x {b: 1}", "f.yaml:1:4: the tag '!x'; recipes have no tags; remove it"),
        ("1: a", "f.yaml:1:1: 1 stands as a key; keys are text; put it in quotes"),
        ("true: a", "f.yaml:1:1: true stands as a key; keys are text; put it in quotes"),
        ("[a]: 1", "f.yaml:1:1: a list or map stands as a key; keys are text; put it in quotes"),
        ("<<: 3", "f.yaml:1:5: '<<' merges no map; write '<<: *anchor' of a map"),
        ("a: &a [*a]", "f.yaml:1:4: this value holds itself, by an alias; write the value out"),
        ("a: " + "9" * 5000, "f.yaml:1:4: a number of 5000 digits; write a shorter one"),
    ],
)
def test_what_yaml_allows_and_a_recipe_does_not(text, message):
    faults = []
    parse(text, "f.yaml", faults)
    assert [str(fault) for fault in faults] == [message]


def test_a_python_tag_runs_nothing(tmp_path):
    faults = []
    marker = tmp_path / "ran"
    root = parse(f"a: !!python/object/apply:os.mkdir ['{marker}']", "f.yaml", faults)
    assert plain(root) == {"a": [str(marker)]}
    assert "the tag" in faults[0].found
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a:\n\tb: 1", "f.yaml:2:1", "a tab; indent with spaces"),
        ("a: b: c", "f.yaml:1:5", "':' where no key can stand"),
        ("a: 'x\nb: 1", "f.yaml:1:4", "a quote that is never closed"),
        ("a: [1, 2\nb: 1", "f.yaml:1:4", "without its end ']'"),
        ("a: {b: 1", "f.yaml:1:4", "without its end '}'"),
        ("a:\n  b: 1\n c: 2", "f.yaml:3:2", "does not fit the lines above"),
        ("a: @x", "f.yaml:1:4", "cannot begin with '@'; put the text in quotes"),
        ("a: *x", "f.yaml:1:4", "'*x' is an alias of nothing"),
        ("a: 1\n---\nb: 1", "f.yaml:2:1", "a second document"),
        ('a: "\\q"', "f.yaml:1:6", "'\\q' means nothing in double quotes; use"),
        ("a: 1\nbcd\n", "f.yaml:2:1", "a key without ':'"),
        ("a: }", "f.yaml:1:4", "where a value should be"),
        ("a: - b", "f.yaml:1:4", "'-' where no list can stand"),
        ("a: 1\nb: x\x01", "f.yaml:2:5", "the character U+0001"),
        ("a: &x 1\nb: &x 2", "f.yaml:2:4", "the same anchor twice"),
        ("%FOO\na: 1", "f.yaml:2:1", "this is not YAML"),
    ],
)
def test_syntax_errors_say_where_and_what_in_plain_words(text, place, words):
    with pytest.raises(UserError) as caught:
        parse(text, "f.yaml", [])
    (fault,) = caught.value.faults
    assert fault.place == place
    assert words in str(fault)
    assert fault.remedy


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), TREES, max_size=4))
def test_what_is_dumped_is_read_back(tree):
    assert read(dump_yaml(tree)) == tree


@given(st.text(alphabet="0123456789eExo.+-_:~nulNUtrfasyo", max_size=6))
def test_text_that_looks_like_something_else_stays_text(text):
    assert read(dump_yaml({"a": text})) == {"a": text}


@given(st.text())
def test_any_text_is_read_or_refused_with_a_place(text):
    try:
        parse(text, "f.yaml", [])
    except UserError as error:
        assert error.faults[0].place.startswith("f.yaml:")
