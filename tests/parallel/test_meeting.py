"""Ranks that meet: who has come, whether they belong together, by what interface they speak."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from ftkit.core.errors import UserError
from ftkit.parallel import meeting
from ftkit.parallel.address import address_towards, interface_towards
from ftkit.parallel.meeting import Guest, gloo_interface, introduce


@pytest.fixture(autouse=True)
def master(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setattr(meeting, "LOOK", 0.01)


def come(*told, timeout=5.0):
    """Have processes come that were told (rank, size) each; return what each finds."""
    store = HashStore()

    def one(rank, size):
        try:
            return introduce(store, rank, size, timeout)
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(told)) as pool:
        return list(pool.map(lambda each: one(*each), told))


def test_all_come_and_each_knows_all():
    for found in come((0, 3), (2, 3), (1, 3)):
        assert sorted(guest.rank for guest in found) == [0, 1, 2]
        assert {guest.address for guest in found} == {"127.0.0.1"}


def test_nodes_that_were_told_of_other_numbers_are_refused_at_once():
    begin = time.monotonic()
    for found in come((0, 2), (2, 4), (3, 4)):
        assert isinstance(found, UserError)
        assert "was told of" in str(found)
        assert str(found).endswith("give every node the same --gpus and the same number of nodes")
        assert found.shared
    assert time.monotonic() - begin < 2


def test_a_rank_that_comes_twice_is_refused_at_once():
    for found in come((0, 3), (1, 3), (1, 3)):
        assert isinstance(found, UserError)
        assert str(found).startswith("rank 1: it has come twice: from ")


def test_who_does_not_come_is_named(capfd, monkeypatch):
    monkeypatch.setattr(meeting, "NOTE", 0.05)
    for found in come((0, 4), (3, 4), timeout=0.3):
        assert str(found).startswith("127.0.0.1:29500: ranks 1 to 2 did not come within 0 s")
    notes = capfd.readouterr().err.splitlines()
    assert 1 <= len(notes) <= 3
    assert set(notes) == {"waiting for ranks 1 to 2 of 4, 0 s"}


def test_the_interface_leads_to_the_first_machine(monkeypatch):
    monkeypatch.setattr(meeting, "interface_towards", lambda host: f"towards {host}")
    monkeypatch.setenv("MASTER_ADDR", "n0")
    guests = [Guest(0, 2, "n0", "10.0.0.1"), Guest(1, 2, "n1", "10.0.0.2")]
    assert [gloo_interface(guests, rank) for rank in (0, 1)] == ["towards n0"] * 2


def test_where_its_name_means_the_loopback_the_interface_leads_to_another(monkeypatch):
    monkeypatch.setattr(meeting, "interface_towards", lambda host: f"towards {host}")
    monkeypatch.setenv("MASTER_ADDR", "n0")
    guests = [Guest(0, 2, "n0", "127.0.0.1"), Guest(1, 2, "n1", "10.0.0.2")]
    assert [gloo_interface(guests, r) for r in (0, 1)] == ["towards 10.0.0.2", "towards n0"]
    alone = [Guest(0, 2, "n0", "127.0.0.1"), Guest(1, 2, "n0", "::1"), Guest(2, 2, "n0", "")]
    assert gloo_interface(alone, 0) == "towards n0"


def test_addresses_and_interfaces_of_both_kinds():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert interface_towards("localhost") == "lo"
    assert interface_towards("::1") in {"lo", ""}  # a machine may have no IPv6
    assert interface_towards("no-such-machine.invalid") == ""


def test_what_a_rank_says_is_read_by_others():
    guest = Guest(1, 2, "node", "10.0.0.1")
    store = HashStore()
    store.set("met/1", json.dumps({"rank": 1, "size": 2, "host": "node", "address": "10.0.0.1"}))
    store.add("met", 1)
    assert guest in introduce(store, 0, 2, 1.0)
