"""The evidence scripts from end to end, at next to nothing of their size; and what they compute."""

from __future__ import annotations

import json
import math
import statistics
import xml.etree.ElementTree as ET

import pytest

from ftkit.data.decimals import SEEDS_OWN, Decimals, decimals
from scripts.reproduce import decimals as decimals_script
from scripts.reproduce import dft as dft_script
from scripts.reproduce.chart import Band, Line, Panel, Whisker, figure
from scripts.reproduce.page import insert, mean

PAGE = "".join(f"<!-- {name} -->\nold\n<!-- end of {name} -->\n" for name in ("sums", "decimals"))
PAGE += "<!-- search -->\n<!-- end of search -->\n<!-- cost -->\n<!-- end of cost -->\nthe end\n"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/reproduce-dft.md").write_text(PAGE)
    return tmp_path / "docs"


def cells(page, name):
    """The cells of the table between the marks of a name."""
    text = page.read_text().split(f"<!-- {name} -->")[1].split("<!-- end")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines}


def texts(svg):
    return {element.text for element in ET.fromstring(svg.read_text()).iter(f"{SVG}text")}


def test_sums_give_a_table_a_figure_and_the_same_again_without_training(
    docs, sums, tmp_path, capsys
):
    said = ["--quick", "--data", str(sums), "--out", str(tmp_path / "out"), "--docs", str(docs)]
    assert dft_script.main([*said, "--seeds", "1"]) == 0
    page = docs / "reproduce-dft.md"
    table = cells(page, "sums")
    assert {"start", "sft", "dft", "dft2", "dft2*", "dft2 less sft"} <= set(table)
    found = json.loads(next((tmp_path / "out").glob("seed-0/few-sft*/found.json")).read_text())
    assert f" {100 * found['reward_accuracy']:.1f} " in table["sft"]
    assert {"sft", "dft*", "reward accuracy (%)", "1,000 sums"} <= texts(docs / "reproduce-dft.svg")
    before = page.read_text()
    capsys.readouterr()
    assert dft_script.main([*said, "--seeds", "1"]) == 0
    assert page.read_text() == before
    assert "ftkit" not in capsys.readouterr().err  # no command was run

    assert dft_script.main([*said, "--cost"]) == 0
    assert {"a step, sft", "a step, dft", "an answer of the pool"} <= set(cells(page, "cost"))


def test_the_search_tries_each_with_the_first_seed_and_some_again(
    docs, sums, tmp_path, monkeypatch
):
    for name, tried in (("SEARCH", dft_script.SEARCH), ("AGAIN", dft_script.AGAIN)):
        monkeypatch.setattr(dft_script, name, {"all": tried["all"][1:2], "few": ()})
    monkeypatch.setattr(dft_script, "SEARCH_SEEDS", range(7, 9))
    monkeypatch.setitem(dft_script.SEARCH, "few", (dft_script.METHODS["few"]["sft"],))
    said = ["--quick", "--search", "--data", str(sums), "--out", str(tmp_path / "out")]
    assert dft_script.main([*said, "--docs", str(docs)]) == 0
    assert (tmp_path / "out/seed-7/few-sft-lr-0.002").is_dir()
    assert (tmp_path / "out/seed-8").is_dir()
    assert not (tmp_path / "out/seed-8/few-sft-lr-0.002").exists()
    assert {"8,954 sums", "1,000 sums"} <= set(cells(docs / "reproduce-dft.md", "search"))


def test_decimals_give_a_table_and_a_figure_of_what_was_measured(docs, tmp_path):
    out = tmp_path / "out"
    assert decimals_script.main(["--quick", "--out", str(out), "--docs", str(docs)]) == 0
    table = cells(docs / "reproduce-dft.md", "decimals")
    curve = json.loads((out / "dft.json").read_text())
    assert curve["steps"] == [0, 1, 2]
    assert [len(curve[name]) for name in decimals_script.SETS] == [3, 3, 3, 3]
    ((right, wrong),) = curve["own"][-1]
    assert table["dft"][:2] == [f" {right:.2f} ", f" {wrong:.2f} "]
    starts = [json.loads((out / f"{name}.json").read_text())["own"][0] for name in ("sft", "dft2")]
    assert starts[0] == starts[1] == curve["own"][0]  # the same start
    assert {"step", "log-probability (nats)", "dft2: pairs held out"} <= texts(
        docs / "decimals.svg"
    )


def test_what_is_compared_is_what_remains_when_the_two_sentences_part():
    pair = Decimals(*SEEDS_OWN)
    row = pair.pair()
    assert row["prompt"] + row["chosen"] == pair.row()["prompt"] + pair.row()["completion"]
    assert row["prompt"] + row["rejected"] == pair.row()["prompt"] + pair.answer(11)
    for each in decimals("train")[:200]:
        numbers = {float(f"{each.whole}.{n}"): n for n in (each.short, each.long)}
        assert numbers[max(numbers)] == each.bigger
        assert each.disputed == (max(each.short, each.long) != each.bigger)


def test_held_out_decimals_are_not_learnt_beside_another_whole_number():
    learnt = {(pair.short, pair.long) for pair in decimals("train")}
    held_out = {(pair.short, pair.long) for pair in decimals("test")}
    assert not learnt & held_out
    assert len(learnt | held_out) == 9 * 81


def test_the_interval_over_seeds_is_students():
    values = [0.1, 0.4, 0.2, 0.7, 0.3]
    found = mean(values)
    assert found.value == pytest.approx(statistics.fmean(values))
    assert found.reach == pytest.approx(2.7764 * statistics.stdev(values) / math.sqrt(5))
    assert mean([0.5]).reach is None


def test_a_text_takes_the_place_of_the_one_before_and_of_nothing_else(docs):
    page = docs / "reproduce-dft.md"
    insert(page, "sums", r"new \1")
    assert page.read_text() == PAGE.replace(
        "-->\nold\n<!-- end of sums", "-->\n\nnew \\1\n\n<!-- end of sums"
    )
    with pytest.raises(SystemExit, match="no place for 'other'"):
        insert(page, "other", "text")


def test_points_stand_where_the_axes_say():
    """The frame is 250 wide and 210 high; y grows upwards."""
    line = Line("red", "a name", [(0.0, -10.0), (5.0, 0.0), (10.0, -5.0)])
    band = Band("blue", "", [(0.0, -10.0, 0.0), (10.0, -10.0, 0.0)])
    mark = Whisker("red", "", (5.0, -5.0, -10.0, 0.0))
    panel = Panel("t", "x", "y", [line, band, mark], y_range=(-10.0, 0.0), x_range=(0.0, 10.0))
    root = ET.fromstring(figure([[panel]], "about"))
    frame = next(each for each in root.iter(f"{SVG}rect") if each.get("fill") == "none")
    left, top = float(frame.get("x")), float(frame.get("y"))
    points = next(root.iter(f"{SVG}polyline")).get("points").split()
    placed = [tuple(map(float, point.split(","))) for point in points]
    assert placed == [(left, top + 210), (left + 125, top), (left + 250, top + 105)]
    assert next(root.iter(f"{SVG}polygon")).get("points").count(",") == 4
    inside = (float(root.get("width")), float(root.get("height")))
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= inside[0]
        assert 0 <= float(text.get("y")) <= inside[1]
