"""What PyYAML says of a text that is not YAML, in plain words."""

from __future__ import annotations

import re

import yaml

from ftkit.core.errors import Fault
from ftkit.recipe.nodes import Place

_QUOTE = "put the text in quotes"
_BRACKET = "close the bracket, and put a comma between any two items"
_WORDS: tuple[tuple[str, str, str], ...] = (
    (r"found character '\\t'", "a tab", "indent with spaces"),
    (r"found character '(.)'", r"a value cannot begin with '\1'", _QUOTE),
    (
        "mapping values are not allowed",
        "a ':' where no key can stand",
        "indent the keys of one map alike, and put text that holds ': ' in quotes",
    ),
    ("could not find expected ':'", "a key without ':'", "write 'key: value'"),
    (
        "expected <block end>",
        "this does not fit the lines above",
        "indent the keys of one map, or the items of one list, alike",
    ),
    ("sequence entries are not allowed", "a '-' where no list can stand", "write it on a new line"),
    ("unexpected end of stream|document separator", "a quote that is never closed", "close it"),
    (
        "unknown escape character '(.)'",
        r"'\\\1' means nothing in double quotes",
        "use single quotes",
    ),
    ("hexadecimal numbers", "an escape without its digits", "use single quotes"),
    (r"expected ',' or '([\]}])'", r"a list or map in brackets without its end '\1'", _BRACKET),
    ("expected the node content", "a bracket, comma or '-' where a value should be", _BRACKET),
    (
        r"undefined alias '(.*)'",
        r"'*\1' is an alias of nothing",
        r"define &\1 first, or use quotes",
    ),
    ("second occurrence", "the same anchor twice", "give one another name"),
    ("but found another document", "a second document", "remove the '---'"),
    ("undefined tag handle", "a tag", "recipes have no tags; remove it, or use quotes"),
)
"""What PyYAML's problem matches, what to call it, what to do."""
_AT_START = ("a key without", "a quote that", "a list or map in brackets")
"""What is better shown where it begins than where reading stopped."""


def syntax_fault(error: yaml.MarkedYAMLError, file: str, at: Place | None) -> Fault:
    """Return the fault of a syntax error."""
    problem = error.problem or error.context or "this is not YAML"
    found, remedy = f"this is not YAML: {problem}", "see https://yaml.org/spec/1.2.2"
    for pattern, *words in _WORDS:
        if match := re.search(pattern, problem):
            found, remedy = (match.expand(each) for each in words)
            break
    mark = error.problem_mark or error.context_mark
    if found.startswith(_AT_START) and error.context_mark:
        mark = error.context_mark
    here = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    return Fault(str(at or here), found, remedy)


def character_fault(
    error: yaml.reader.ReaderError, text: str, file: str, at: Place | None
) -> Fault:
    """Return the fault of a character that YAML does not allow."""
    before = text[: error.position]
    here = Place(file, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
    found = f"the character U+{ord(text[error.position]):04X}"
    return Fault(str(at or here), found, "remove it, or write it as an escape in double quotes")
