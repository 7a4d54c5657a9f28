"""What is counted are tensors that are there, each storage once, for as long as it is."""

from __future__ import annotations

import pytest
import torch

from ftkit.plan.live import OWN_PAGES, Live


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_count_from_when_they_are_made_until_they_are_gone(device):
    with Live() as live:
        one = torch.empty(1000, device=device)
        assert live.now == 4000
        view, same = one[10:], one.view(10, 100)
        assert live.now == 4000
        two = one + 1
        assert live.now == 8000
        del one, view, same
        assert live.now == 4000
        two.add_(1)
        assert (live.now, live.peak) == (4000, 8000)
        del two
        assert (live.now, live.peak) == (0, 8000)


def test_what_is_known_before_does_not_count():
    weight = torch.empty(1000, device="meta")
    with Live([weight]) as live:
        weight.mul_(2)
        assert live.now == 0


def test_a_graph_holds_what_autograd_keeps():
    x = torch.empty(1000, device="meta", requires_grad=True)
    with Live([x]) as live:
        y = x.exp().sin()  # exp keeps its result, which is what sin keeps; then sin's own
        assert live.now == 8000
        y.backward(torch.empty_like(y))
        del y
        assert live.now == 4000  # the gradient


def test_small_tensors_are_told_apart():
    with Live() as live:
        large = torch.empty(OWN_PAGES // 4, device="meta")
        small = torch.empty(OWN_PAGES // 4 - 1, device="meta")
        assert live.small == OWN_PAGES - 4
        assert live.now == 2 * OWN_PAGES - 4
        del large, small
        assert (live.now, live.small) == (0, 0)
