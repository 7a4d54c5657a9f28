"""Make training files of GSM8K (Cobbe et al., 2021, arXiv:2110.14168; MIT licence).

Writes OUT/train.jsonl and OUT/test.jsonl, one {"prompt", "completion", "truth"} a line, and with
``--tokenizer N`` a byte-level BPE of N tokens in OUT/tokenizer, trained on the training text.

    python scripts/prepare_gsm8k.py --tokenizer 4096
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ftkit.core.errors import UserError, user_error
from ftkit.data.config import SourceConfig
from ftkit.data.read import HUB, Faults, read_rows

SOURCE = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "gsm8k"
MARKER = "####"
ANNOTATION = re.compile(r"<<[^<>]*>>")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")


def convert(question: str, answer: str, place: str, *, annotations: bool) -> dict[str, str]:
    """Return the row of one problem.

    Args:
        question: the problem in words.
        answer: the solution, whose last line is ``#### NUMBER``.
        place: where it stands, for errors.
        annotations: keep the calculator's ``<<48/2=24>>``.

    Returns:
        ``truth`` is the number without commas, and ``completion`` ends with it.

    Raises:
        UserError: if the answer has no final number.
    """
    reasoning, found, final = answer.rpartition(MARKER)
    truth = THOUSANDS.sub("", final.strip())
    if not found or not re.fullmatch(r"-?\d+(\.\d+)?", truth):
        raise user_error(place, f"no number after {MARKER}", "take GSM8K's own files")
    if not annotations:
        reasoning = ANNOTATION.sub("", reasoning)
    return {
        "prompt": f"{question.strip()}\n",
        "completion": f"{reasoning.strip()}\n{MARKER} {truth}",
        "truth": truth,
    }


def rows_of(source: str, split: str, *, annotations: bool) -> Iterator[dict[str, str]]:
    """Yield the rows of a split, from a folder or from the hub.

    Raises:
        UserError: if there are none, or one is broken.
    """
    hub = source.startswith(HUB)
    path = source if hub else str(Path(source) / f"{split}.jsonl")
    faults = Faults()
    for row in read_rows(SourceConfig(path=path, split=split), 0, faults):
        fields = row.fields
        yield convert(fields["question"], fields["answer"], row.place, annotations=annotations)
    faults.check()


def write(file: Path, text: str, *, force: bool) -> None:
    """Write a file, unless it is there with other content.

    Raises:
        UserError: if it is, and ``force`` is not set.
    """
    if file.exists() and file.read_text(encoding="utf-8") != text and not force:
        raise user_error(
            str(file), "it exists and has other content", "give another --out, or --force"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(file)


def train_and_save(texts: list[str], size: int, folder: Path, *, force: bool) -> None:
    """Train a tokenizer and save it, unless there is another one.

    Raises:
        UserError: if there is, and ``force`` is not set.
    """
    from ftkit.model.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(texts, size)
    rules = folder / "tokenizer.json"
    new = json.loads(tokenizer.backend_tokenizer.to_str())
    if rules.exists() and not force and json.loads(rules.read_text(encoding="utf-8")) != new:
        raise user_error(
            str(folder), "it holds another tokenizer", "give another --out, or --force"
        )
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {len(tokenizer):,} tokens")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--source",
        default=str(SOURCE),
        help="a folder with train.jsonl and test.jsonl, or hf:openai/gsm8k:main",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/data/gsm8k"))
    parser.add_argument("--annotations", action="store_true", help="keep <<...>>")
    parser.add_argument(
        "--tokenizer",
        type=int,
        nargs="?",
        const=4096,
        metavar="N",
        help="train a tokenizer of N tokens, 4096 if none is said",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files with other content")
    given = parser.parse_args(arguments)
    try:
        for split in ("train", "test"):
            rows = list(rows_of(given.source, split, annotations=given.annotations))
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write(given.out / f"{split}.jsonl", text, force=given.force)
            print(f"{given.out / split}.jsonl: {len(rows):,} rows")
            if split == "train" and given.tokenizer:
                texts = [row["prompt"] + row["completion"] for row in rows]
                train_and_save(texts, given.tokenizer, given.out / "tokenizer", force=given.force)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
