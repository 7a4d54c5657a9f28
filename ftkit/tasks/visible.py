"""Text that a model wrote, as a terminal may show it."""

from __future__ import annotations

import unicodedata

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Categories of characters that steer a terminal or cannot be seen."""

JOINERS = "\u200c\u200d"
"""Letters of some scripts and some emoji are made with these."""

PICTURES = 0x2400
"""Where Unicode has a picture of each control character below 32."""


def visible(text: str) -> str:
    r"""Return a text with control characters in a form that can be seen; line breaks stay.

    >>> visible("a\x1b[1m\tb\r\n\x7f \x85 \u202e \ud800")
    'a␛[1m␉b␍\n␡ \\x85 \\u202e \\ud800'
    """
    return "".join(_shown(character) for character in text)


def in_a_line(text: str) -> str:
    r"""Return the same, line breaks shown as well.

    >>> in_a_line("a\nb")
    'a␊b'
    """
    return visible(text).replace("\n", "\u240a")


def _shown(character: str) -> str:
    code = ord(character)
    if character == "\n" or character in JOINERS or unicodedata.category(character) not in HIDDEN:
        return character
    if code < ord(" "):
        return chr(PICTURES + code)
    if code == 0x7F:  # noqa: PLR2004  (DEL)
        return "\u2421"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004
