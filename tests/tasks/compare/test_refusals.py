"""``ftkit compare``: its files, and bad input."""

from __future__ import annotations

import json
import math
import re

from PIL import Image

from ftkit.tasks.curves.style import LIGHT
from tests.tasks.compare.online import faults, online, rows, write


class TestFiles:
    def test_the_page_needs_nothing_else(self, here, measure):
        measure(
            online(here / "a"), online(here / "b", train__lr=1.0), out="page.html", metrics=None
        )
        text = (here / "page.html").read_text()
        assert not re.search(r"(src|href)\s*=|@import|url\(|https?:", text)
        blob = re.search(r'<script type="application/json" id="told">(.*?)</script>', text).group(1)
        told = json.loads(blob)
        assert told["names"] == ["a", "b"]
        assert len(told["charts"]) == text.count('role="img"') == 2 * 7
        for chart in told["charts"]:
            for _, xs, ys, _, _ in chart["lines"]:
                assert len(xs) == len(ys)
                assert xs == sorted(xs)
        for word in ("method.clip_high", "train.lr", "prefers-color-scheme:dark"):
            assert (word in text) == (word != "method.clip_high")

    def test_the_picture_is_a_png_that_says_who_made_it(self, here, measure):
        measure(online(here / "a"), metrics="reward", out="p.png")
        with Image.open(here / "p.png") as image:
            assert image.text["Software"].startswith("ftkit compare")
            assert min(image.size) > 300
            ink = set(image.convert("RGB").getdata())
        assert tuple(bytes.fromhex(LIGHT[0][1:])) in ink

    def test_only_own_files_are_replaced(self, here, measure):
        run = online(here / "a", steps=3)
        measure(run)
        before = [(here / f"compare.{kind}").read_bytes() for kind in ("png", "html")]
        measure(run, metrics="kl")
        after = [(here / f"compare.{kind}").read_bytes() for kind in ("png", "html")]
        assert before[0] != after[0]
        assert before[1] != after[1]
        (here / "mine.html").write_text('<meta name="generator" content="ftkit">')
        Image.new("RGB", (4, 4)).save(here / "mine.png")
        kept = (here / "mine.png").read_bytes()
        found = faults(run, out="mine")
        assert [fault.split(":")[0] for fault in found] == ["mine.png", "mine.html"]
        assert (here / "mine.png").read_bytes() == kept
        assert sorted(path.name for path in here.glob(".tmp*")) == []
        (here / "half.html").mkdir()
        assert len(faults(run, out="half")) == 1
        assert not (here / "half.png").exists()
        assert "folder does not exist" in faults(run, out="no/where")[0]


class TestBadInput:
    def test_all_faults_come_at_once(self, here):
        good = online(here / "good", steps=3)
        broken = online(here / "broken", steps=3)
        lines = (broken / "metrics.jsonl").read_text().splitlines()
        (broken / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:20], lines[2]]))
        (broken / "eval.jsonl").write_text('[1]\n{"step": 1}\n')
        empty = online(here / "empty", steps=1)
        (empty / "metrics.jsonl").write_text("")
        odd = online(here / "odd", steps=1)
        (odd / "recipe.yaml").write_text("- 1\n")
        back = online(here / "back", steps=3)
        write(back / "metrics.jsonl", rows(back)[::-1])
        (here / "file").touch()
        (here / "compare.png").write_text("mine")
        found = faults(good, good, broken, empty, odd, back, "nowhere", "file", ".")
        for place, word in (
            (str(good), "named twice"),
            (f"{broken}/metrics.jsonl:2", "broken JSON"),
            (f"{broken}/eval.jsonl:1", "no line of a run"),
            (str(empty), "no step yet"),
            (f"{odd}/recipe.yaml", "not a map"),
            (f"{back}/metrics.jsonl:2", "step 2 comes after step 3"),
            ("nowhere", "no such folder"),
            ("file", "no run's folder"),
            (".", "give the runs in it: back broken empty good"),
            ("compare.png", "did not write it"),
        ):
            assert any(f.startswith(f"{place}:") and word in f for f in found), (place, found)
        assert len(found) == 10
        assert not (here / "compare.html").exists()

    def test_a_last_line_that_was_cut_is_left_out_and_said(self, here, measure):
        run = online(here / "a", steps=50)
        (run / "summary.json").unlink()
        text = (run / "metrics.jsonl").read_text()
        for cut in (1, 30, len(rows(run)[-1])):
            (run / "metrics.jsonl").write_text(text[: -cut - 1])
            found = measure(run)
            (line,) = found["lines"]
            assert line["runs"][0]["step"] == 49
            assert any("line 50 was cut" in note for note in found["notes"])
        assert line["runs"][0]["status"] == "unfinished"
        assert any("goes on still" in note and "step 49 of 100" in note for note in found["notes"])

    def test_how_a_run_ended_is_said_unless_it_goes_on_by_now(self, here, measure):
        run = online(here / "a", steps=30)
        told = {"status": "stopped", "step": 30, "steps": 100}
        (run / "summary.json").write_text(json.dumps(told))
        assert "a: was stopped; drawn up to step 30 of 100" in measure(run)["notes"]
        (run / "summary.json").write_text(json.dumps({**told, "step": 20}))
        assert measure(run)["lines"][0]["runs"][0]["status"] == "unfinished"

    def test_values_that_are_no_numbers_are_gaps(self, here, measure):
        run = online(here / "a", steps=20)
        lines = rows(run)
        lines[-1]["reward"] = math.nan
        lines[3]["reward"] = math.inf
        write(run / "metrics.jsonl", lines)
        found = measure(run)
        late = found["lines"][0]["final"]["reward"]["value"]
        assert late == lines[-2]["reward"]
        assert "a: reward: no number at 2 of its steps; left out there" in found["notes"]

    def test_more_lines_than_can_be_told_apart_are_refused(self, here):
        runs = [online(here / str(n), steps=1, train__lr=n) for n in range(22)]
        assert "more than the 21" in faults(*runs)[0]

    def test_nearly_equal_values_are_told_apart(self, here, measure):
        run = online(here / "a", steps=3)
        write(run / "metrics.jsonl", [{"step": n, "reward": 0.5 + n * 1e-9} for n in (1, 2, 3)])
        measure(run, metrics="reward")
        shown = re.findall(r'text-anchor="end">([^<]*)<', (here / "compare.html").read_text())
        assert len(shown) == 2 * len(set(shown)) >= 4

    def test_a_run_without_a_measure_is_refused(self, here):
        run = online(here / "a", steps=3)
        write(run / "metrics.jsonl", [{"step": 1, "tokens": "many"}])
        (run / "eval.jsonl").unlink()
        assert "measured nothing" in faults(run, metrics=None)[0]

    def test_one_step_is_enough(self, here, measure):
        measure(online(here / "a", steps=1, every=1))
        assert (here / "compare.png").stat().st_size > 1000
