"""Work beside the training: in order, none of it lost, and what goes wrong is told."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cce_minus.recsys.run.background import Writer, import_large, in_thread, no_collector, prefetched


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_items_come_in_order_and_a_few_ahead():
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = prefetched(items(), depth=3)
    assert next(ahead) == 0
    wait_for(lambda: len(made) == 5)  # one is taken, three wait and one finds no room
    time.sleep(0.02)
    assert len(made) == 5
    assert list(ahead) == list(range(1, 20))
    assert list(prefetched([])) == []
    assert not threads("prefetch")


def test_what_making_an_item_raises_is_raised_at_its_turn():
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("made wrong")

    ahead = prefetched(items())
    assert next(ahead) == 1
    with pytest.raises(ZeroDivisionError, match="made wrong"):
        next(ahead)
    assert not threads("prefetch")


def test_a_consumer_that_leaves_early_ends_the_thread():
    ahead = prefetched(iter(int, 1))  # without end
    assert next(ahead) == 0
    assert threads("prefetch")
    ahead.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not threads("prefetch")


class Slow:
    """Writes items once ``go`` is set, and fails at ``bad``."""

    def __init__(self, bad: str | None = None) -> None:
        self.bad, self.written = bad, []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, item: str) -> None:
        self.begun.set()
        assert self.go.wait(10)
        if item == self.bad:
            raise OSError(f"no place for {item}")
        self.written.append(item)


def test_items_that_wait_become_one():
    slow = Slow()
    with Writer(slow, str.__add__) as writer:
        writer.submit("a")
        assert slow.begun.wait(10)
        for item in "bcd":  # waits for nothing
            writer.submit(item)
        slow.go.set()
        wait_for(lambda: len(slow.written) == 2)
        writer.submit("e")
        writer.finish()
        assert slow.written == ["a", "bcd", "e"]
    assert not threads("writer")


def test_an_error_is_raised_by_the_next_submit():
    slow = Slow(bad="a")
    slow.go.set()

    def train() -> None:
        with Writer(slow, str.__add__) as writer:
            writer.submit("a")
            wait_for(lambda: not threads("writer"))
            writer.submit("b")
            raise AssertionError("that should have raised")

    with pytest.raises(OSError, match="no place for a"):
        train()
    assert slow.written == []


def test_waiting_ends_in_the_middle_of_writing():
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def write(item: str) -> None:
        begun.set()
        assert go.wait(10)
        ended.set()

    with Writer(write, str.__add__) as writer:
        writer.submit("a")
        writer.wait_for(begun.is_set)
        assert not ended.is_set()
        go.set()
        writer.wait_for(ended.is_set)


def test_an_error_is_raised_where_something_is_waited_for():
    slow = Slow(bad="a")
    slow.go.set()

    def train() -> None:
        with Writer(slow, str.__add__) as writer:
            writer.submit("a")
            writer.wait_for(lambda: bool(slow.written))

    with pytest.raises(OSError, match="no place for a"):
        train()


@pytest.mark.parametrize("finish", [True, False])
def test_an_error_is_raised_at_the_end(finish: bool):
    slow = Slow(bad="b")

    def train() -> None:
        with Writer(slow, str.__add__) as writer:
            writer.submit("a")
            assert slow.begun.wait(10)
            writer.submit("b")
            slow.go.set()
            if finish:
                writer.finish()

    with pytest.raises(OSError, match="no place for b"):
        train()
    assert slow.written == ["a"]
    assert not threads("writer")


@pytest.mark.parametrize("bad", [None, "b"])
def test_everything_is_written_after_an_error_of_the_body_which_comes_first(bad: str | None):
    slow = Slow(bad)

    def train() -> None:
        with Writer(slow, str.__add__) as writer:
            writer.submit("a")
            assert slow.begun.wait(10)
            writer.submit("b")
            slow.go.set()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert slow.written == ["a", "b"][: 1 if bad else 2]
    assert not threads("writer")


def test_large_imports_leave_the_collector_of_cycles_as_it_was():
    for collects in (True, False):
        (gc.enable if collects else gc.disable)()
        try:
            assert import_large("colorsys").rgb_to_hsv(0, 0, 0) == (0, 0, 0)
            with pytest.raises(ModuleNotFoundError):
                import_large("there_is_no_such_module")
            assert gc.isenabled() == collects
        finally:
            gc.enable()


def test_what_a_thread_made_or_raised_is_told_by_its_result():
    def fail() -> None:
        raise ValueError("wrong")

    assert in_thread(lambda: 3, "three").result(10) == 3
    with pytest.raises(ValueError, match="wrong"):
        in_thread(fail, "fails").result(10)


def test_the_collector_waits_for_the_last_of_several_threads():
    assert gc.isenabled()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with no_collector():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with no_collector():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled()  # for the other thread
    leave.set()
    thread.join()
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
