"""The recipe's ``verify:``: who judges answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftkit.core.section import Section


class ExactConfig(Section):
    """Right if the answer is the truth, white space at both ends apart."""

    name: Literal["exact"]
    after: str | None = Field(None, min_length=1)
    """Compare only what follows the last occurrence of this marker, such as `####`, in both; an
    answer without it is unparseable, not right; a truth without it is compared whole."""


Verify = ExactConfig
"""Every verifier that a recipe can name."""
