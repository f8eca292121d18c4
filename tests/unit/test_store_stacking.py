"""Layers taken in two at a time: order, waiting, and what a failure ends."""

from __future__ import annotations

import threading

import pytest

from duckweed.store.stacking import LayerFailed, Stack, Turn


def nothing() -> None:
    """No archive to tell."""


def test_results_are_in_order_and_layers_end_in_order() -> None:
    ended = []

    def take(index: int, turn: Turn) -> int:
        assert turn.below.wait(turn.cancel)
        ended.append(index)
        return index * 10

    assert Stack(7, take, nothing).take_all() == [0, 10, 20, 30, 40, 50, 60]
    assert ended == list(range(7))


def test_a_layer_begins_before_the_one_below_has_ended() -> None:
    begun = threading.Event()

    def take(index: int, turn: Turn) -> bool:
        if index == 0:
            return begun.wait(20)
        begun.set()
        return turn.below.wait(turn.cancel)

    assert Stack(2, take, nothing).take_all() == [True, True]


def test_a_failure_below_ends_what_waits_above() -> None:
    waited = []

    def take(index: int, turn: Turn) -> None:
        if index == 0:
            raise ValueError("bad")
        waited.append(turn.below.wait(turn.cancel))

    with pytest.raises(LayerFailed) as caught:
        Stack(3, take, nothing).take_all()
    assert (caught.value.index, str(caught.value.error)) == (0, "bad")
    assert waited in ([], [False])


def test_a_failure_above_lets_the_layer_below_end() -> None:
    failed = threading.Event()

    def take(index: int, turn: Turn) -> None:
        if index == 1:
            failed.set()
            raise ValueError("bad")
        assert failed.wait(20)
        assert not turn.cancel.is_cancelled()

    with pytest.raises(LayerFailed) as caught:
        Stack(5, take, nothing).take_all()
    assert caught.value.index == 1


def test_no_layers_are_no_work() -> None:
    assert Stack(0, lambda index, turn: index, nothing).take_all() == []
