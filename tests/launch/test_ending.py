"""What a launcher says and returns, of how its ranks ended and what they left."""

from __future__ import annotations

import json

import pytest

from ftkit.launch.reports import Report, ending, reports_in

TRACE = ("Traceback (most recent call last):", "ValueError: no")
GLOO = ("Traceback (most recent call last):", "RuntimeError: gloo: Connection closed by peer")


def said(rank, seconds, lines, status=1, **more):
    return Report(rank, "node", seconds, status, lines, **more)


@pytest.mark.parametrize(
    ("ended", "found", "killed", "status", "lines"),
    [
        ({0: 0, 1: 0}, [], (), 0, []),
        # the first to fail has the word, in full, and others that failed by themselves a line each
        (
            {0: 1, 1: 1, 2: 1},
            [said(0, 1.0, GLOO), said(1, 3.0, ("the run failed: x",)), said(2, 2.0, TRACE)],
            (),
            1,
            ["rank 2 on node failed first:", *TRACE, "then also rank 1: the run failed: x"],
        ),
        # what all say is said once, without a rank
        (
            {0: 2, 1: 2},
            [said(r, 1.0, ("a.yaml: no",), 2, shared=True) for r in (0, 1)],
            (),
            2,
            ["a.yaml: no"],
        ),
        # the system killed one; what the others say of that is not of interest
        (
            {1: -9, 0: 1},
            [said(0, 1.0, GLOO)],
            (),
            1,
            ["rank 1 was killed by SIGKILL: perhaps for want of memory (see dmesg)"],
        ),
        ({1: -11, 0: 1}, [], (), 1, ["rank 1 was killed by SIGSEGV"]),
        # one hung and was killed here, which is no want of memory
        (
            {0: 1, 1: -9},
            [said(0, 1.0, ("rank 1 hangs",), shared=True)],
            {1},
            1,
            ["rank 1 hangs", "ranks 1 were ended"],
        ),
        # only other machines' ranks are known to have failed
        (
            {0: 1},
            [said(0, 1.0, ("rank 8 on far is gone",), follows=True)],
            (),
            1,
            ["rank 0 on node: rank 8 on far is gone"],
        ),
        ({0: 3, 1: 0}, [], (), 1, ["rank 0 ended with status 3"]),
        # all were asked to stop, and did: they have said so
        ({0: 143, 1: 143}, [], (), 143, []),
        ({0: 138, 1: 138}, [], (), 138, []),
        # one was asked alone, or before it could do anything
        *(
            (
                ended,
                [said(0, 1.0, GLOO)],
                killed,
                143,
                [
                    "SIGTERM: stopped before the first step of this start; the same command "
                    "with --resume goes on"
                ],
            )
            for ended, killed in [
                ({1: -15, 0: -15}, ()),
                ({1: -15, 0: 1}, ()),
                ({0: 1, 1: -15}, ()),
                ({1: 143, 0: -9}, {0}),
            ]
        ),
        # a second and a third Ctrl-C
        (
            {0: 130, 1: 130},
            [said(r, 1.0, ("interrupted",), 130, shared=True) for r in (0, 1)],
            (),
            130,
            ["interrupted"],
        ),
        ({0: -9, 1: -9}, [], {0, 1}, 130, ["ranks 0, 1 were ended"]),
        # it failed while it was being stopped: that is told
        (
            {1: 1, 0: 143},
            [said(1, 1.0, TRACE)],
            (),
            1,
            ["rank 1 on node failed first:", *TRACE],
        ),
    ],
)
def test_ending(ended, found, killed, status, lines):
    found = sorted(found, key=lambda each: (each.secondary, each.seconds))
    assert ending(ended, found, killed) == (status, lines)


def test_reports_are_read_the_earliest_of_its_own_first(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_REPORTS", str(tmp_path))
    reports = [said(0, 1.0, GLOO), said(1, 3.0, ("b",), shared=True), said(2, 2.0, ("a",))]
    assert all(each.write() for each in reports)
    (tmp_path / "rank-3.json").write_text('{"rank": 3, "ho')  # killed as it wrote
    assert [each.rank for each in reports_in(tmp_path)] == [2, 1, 0]
    assert json.loads((tmp_path / "rank-1.json").read_text())["shared"] is True
