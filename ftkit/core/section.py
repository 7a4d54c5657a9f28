"""What every section of a recipe is: frozen, strict about names and types, documented by itself."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema


class Section(BaseModel):
    """A part of the recipe.

    Frozen; an unknown key is an error; numbers, strings and booleans are never taken for one
    another (an integer may stand for a float); no number is infinite.  Validators are built when
    first used, so that a command pays for the sections that it reads.

    The string under a field is its documentation: the recipe reference and the JSON schema are made
    of it.  It is read when a schema is asked for; pydantic's ``use_attribute_docstrings`` reads the
    sources at every start, which takes a fifth of the time of ``ftkit check``.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        serialize_by_alias=True,
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return pydantic's schema with each field's documentation."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, text in field_docs(cls).items():
            schema["properties"][cls.model_fields[name].alias or name]["description"] = text
        return schema


def field_docs(section: type[Section]) -> dict[str, str]:
    """Return the documentation of each field that has one: the string under it."""
    docs: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section) and base is not Section:
            docs |= _own_docs(base)
    return {name: text for name, text in docs.items() if name in section.model_fields}


def _own_docs(section: type[Section]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
