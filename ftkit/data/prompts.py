"""Rows that are prompts alone, for methods that sample their answers."""

from __future__ import annotations

from ftkit.data.example import (
    ROLES,
    Completion,
    Example,
    Fields,
    Format,
    RowError,
    chat_of,
    message_of,
    parsed,
    text_of,
    truth_of,
    turns_of,
)


def _prompt_row(fields: Fields, place: str, whole: bool) -> Example:
    given = parsed(fields["prompt"])
    if not isinstance(given, list):
        return Completion(text_of(given, "prompt"), "", place, truth_of(fields))
    context = turns_of(given, "prompt", "role", "content", ROLES)
    if context and context[-1]["role"] == "assistant":
        raise RowError("the prompt ends with a turn of the assistant", "end it with a question")
    return chat_of(context, [message_of("assistant", "")], fields, place, whole, empty=True)


def asked(fields: Fields, ask: str | None) -> Fields:
    """Return a row whose prompt is a turn of the user, as ``data.train[].ask`` words it."""
    if ask is None or not isinstance(fields.get("prompt"), str):
        return fields
    turn = message_of("user", ask.replace("{prompt}", fields["prompt"]))
    return {**fields, "prompt": [turn]}


PROMPTS = {"prompts": Format(frozenset({"prompt"}), _prompt_row)}
"""Prompts, with or without a truth."""
