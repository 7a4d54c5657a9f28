"""Compare verifiers with the labels of GSM8K's model solutions (Cobbe et al., 2021).

Four models solved the 1,319 problems of the test split, and each solution is labelled
``is_correct``.  Each verifier judges all of them against the reference solution; every disagreement
with the labels is listed, and what it takes for unparseable is counted by reason.

    python scripts/verify_gsm8k.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.core.errors import UserError, user_error
from ftkit.verifiers.base import Item, Verdict
from ftkit.verifiers.config import MathConfig, NumericConfig, Verify
from ftkit.verifiers.judge import build_judge
from ftkit.verifiers.trial import self_test

SOURCE = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "gsm8k"
FILE = "example_model_solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

MARKER = "\nA:"
FINAL = re.compile(r"^A:([^\n]*)\Z", re.MULTILINE)


@dataclass(frozen=True)
class Labelled:
    """A model's solution."""

    place: str
    item: Item
    correct: bool


def read(file: Path) -> list[Labelled]:
    """Return all solutions.

    Raises:
        UserError: if the file is not there.
    """
    if not file.is_file():
        raise user_error(str(file), "no such file", "give its folder by --source")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        for model in MODELS:
            one = row[model]
            # a marker is sought at the beginning of a line: the first line gets one too
            item = Item(f"\n{one['solution']}", f"\n{row['ground_truth']}", row["question"])
            found.append(Labelled(f"line {number}, {model}", item, one["is_correct"]))
    return found


def boxed(text: str) -> str:
    """Return a solution with its last line, ``A: 18``, written as a box."""
    return FINAL.sub(lambda found: f"\\boxed{{{found[1].strip()}}}", text)


def in_boxes(items: Sequence[Item]) -> list[Item]:
    """Return the items, final numbers in boxes."""
    return [Item(boxed(item.answer), boxed(item.truth), item.prompt) for item in items]


def judged(verify: Verify, items: Sequence[Item]) -> list[Verdict]:
    """Return a verifier's verdicts, once it has passed its self-test on the truths."""
    with build_judge(verify) as judge:
        tested = self_test(judge, sorted({item.truth for item in items}))
        if tested.failures:
            print(f"self-test: {tested}")
        return judge.judge(items)


def show(name: str, rows: Sequence[Labelled], verdicts: Sequence[Verdict], seconds: float) -> None:
    """Print one verifier's line and every disagreement."""
    counts = Counter(verdict.status for verdict in verdicts)
    apart = [
        (row, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if (verdict.status == "correct") != row.correct
    ]
    told = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    share = 1 - len(apart) / len(rows)
    print(f"{name}: {share:.2%} of {len(rows)} as labelled; {told}; {seconds:.1f} s")
    reasons = Counter(one.detail for one in verdicts if one.status in ("unparseable", "error"))
    for reason, number in reasons.most_common():
        print(f"  {number} times: {reason!r}")
    for row, verdict in apart:
        label = "correct" if row.correct else "incorrect"
        ends = repr(row.item.answer[-50:])
        print(f"  {row.place}: labelled {label}, judged {verdict.status}: {verdict.detail or ends}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--source", type=Path, default=SOURCE, help=f"the folder of {FILE}")
    parser.add_argument("--limit", type=int, default=None, help="so many solutions only")
    options = parser.parse_args(arguments)
    try:
        rows = read(options.source / FILE)[: options.limit]
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    items = [row.item for row in rows]
    numeric = NumericConfig(name="numeric", after=MARKER)
    math = MathConfig(name="math", after=MARKER, boxed=False)
    ways: Mapping[str, Callable[[], list[Verdict]]] = {
        "numeric, after A": lambda: judged(numeric, items),
        "math, after A": lambda: judged(math, items),
        "math, in boxes": lambda: judged(MathConfig(name="math"), in_boxes(items)),
    }
    for name, way in ways.items():
        start = time.perf_counter()
        verdicts: Any = way()
        show(name, rows, verdicts, time.perf_counter() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
