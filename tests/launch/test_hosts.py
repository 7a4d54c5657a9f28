"""The file that names machines."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.launch.hosts import Host, read_hosts, slots_of


@pytest.fixture
def file(tmp_path):
    """Return a function that writes one."""

    def write(text):
        path = tmp_path / "hosts"
        path.write_text(text)
        return str(path)

    return write


def refused(read):
    with pytest.raises(UserError) as error:
        read()
    return [str(fault) for fault in error.value.faults]


def test_comments_empty_lines_users_and_addresses(file):
    text = "# all\n\nnode1 slots=8\n me@node2.example slots=4 # why\n10.0.0.3\nfd00::4 slots=1\n"
    assert read_hosts(file(text), None) == [
        Host("node1", 8),
        Host("me@node2.example", 4),
        Host("10.0.0.3"),
        Host("fd00::4", 1),
    ]
    assert [host.address for host in read_hosts(file(text), 2)] == ["node1", "node2.example"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-oProxyCommand=x slots=8", "'-oProxyCommand=x' is no name"),
        ("-l@node slots=8", "'-l@node' is no name"),
        ("node,other", "'node,other' is no name"),
        ("node:8", "'node:8' is no name of a machine; write node slots=8"),
        ("node 8", "'8' is not known; did you mean slots=8?"),
        ("node slot=8", "'slot=8' is not known; did you mean slots=8?"),
        ("node gpus", "'gpus' is not known; did you mean slots=N?"),
        ("node slots=0", "'0' is no number of ranks"),
        ("node slots=-1", "'-1' is no number of ranks"),
        ("node slots=²", "'²' is no number of ranks"),
        ("node slots = 8", "'slots = 8' is more than slots=N"),
        ("node slots=8 max_slots=8", "'slots=8 max_slots=8' is more than slots=N"),
        ("me@first slots=8", "me@first is there already"),
    ],
)
def test_a_line_that_is_no_machine_is_told_with_its_number(file, line, said):
    path = file(f"first slots=8\n{line}\nlast slots=8\n")
    (told,) = refused(lambda: read_hosts(path, None))
    assert told.startswith(f"{path}:2: {said}")


def test_all_such_lines_are_told_at_once(file):
    path = file("a slots=x\nb\nc slot=1\nb\n")
    assert [each.partition(": ")[0] for each in refused(lambda: read_hosts(path, None))] == [
        f"{path}:{number}" for number in (1, 3, 4)
    ]


@pytest.mark.parametrize(
    ("text", "nodes", "said"),
    [
        ("# none\n", None, "it names no machine"),
        ("a\nb\n", 3, "3 machines are asked for, and it names 2; write --nodes 2"),
        ("localhost\nb\n", None, "on each machine localhost is that machine itself"),
        ("a\n127.0.1.1\n", None, "on each machine 127.0.1.1 is that machine itself"),
    ],
)
def test_what_a_file_cannot_mean(file, text, nodes, said):
    assert said in refused(lambda: read_hosts(file(text), nodes))[0]


def test_this_machine_alone_may_have_any_name(file):
    assert read_hosts(file("localhost\n"), None) == [Host("localhost")]
    assert read_hosts(file("localhost\nnode2\n"), 1) == [Host("localhost")]


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path / "nowhere", tmp_path / "binary", tmp_path):
        with pytest.raises(UserError, match="it cannot be read"):
            read_hosts(str(path), None)


def test_slots_are_the_same_for_all_that_have_any():
    assert slots_of([Host("a", 8), Host("b"), Host("c", 8)], "f") == 8
    assert slots_of([Host("a"), Host("b")], "f") is None
    (told,) = refused(lambda: slots_of([Host("a", 8), Host("b", 4), Host("c")], "f"))
    assert "a 8, b 4, c nothing; write the same for each, or --gpus 4" in told
