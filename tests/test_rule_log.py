"""What an operator sees of a rule that fails, and how often."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fastlb import rule_log
from fastlb.rule_log import report


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    rule_log.forget()
    yield
    rule_log.forget()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written to standard error: one entry per call of write()."""
    texts: list[str] = []

    def write(fd: int, data: bytes) -> int:
        assert fd == 2
        texts.append(data.decode())
        return len(data)

    monkeypatch.setattr(os, "write", write)
    return texts


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def divide() -> float:
    return 1 / int("0")


def misread() -> int:
    return int("x")


def test_a_report_in_one_write(written: list[str]) -> None:
    report("shop:route", raised(divide))
    (text,) = written
    first, *rest = text.splitlines()
    assert first == "fastlb: error: rule shop:route failed: ZeroDivisionError: division by zero"
    assert rest[0] == "fastlb: rule shop:route: Traceback (most recent call last):"
    assert 'fastlb: rule shop:route:     return 1 / int("0")' in rest
    assert rest[-1] == "fastlb: rule shop:route: ZeroDivisionError: division by zero"
    assert all(line.startswith("fastlb: rule shop:route: ") for line in rest)


def test_once_per_place_and_minute(written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(5):
        report("shop:route", raised(divide))
    assert len(written) == 1
    report("shop:other", raised(divide))
    report("shop:route", raised(misread))
    assert len(written) == 3
    now[0] += 59.9
    report("shop:route", raised(divide))
    assert len(written) == 3
    now[0] += 0.2
    report("shop:route", raised(divide))
    assert len(written) == 4
    assert "division by zero (5 more since the last report)" in written[3].splitlines()[0]
    now[0] += 61
    report("shop:route", raised(divide))
    assert "more since" not in written[4]


def test_what_caused_it_is_shown(written: list[str]) -> None:
    def wrapped() -> None:
        try:
            divide()
        except ZeroDivisionError as error:
            raise LookupError("no node") from error

    report("shop:route", raised(wrapped))
    assert "ZeroDivisionError: division by zero" in written[0]
    assert "direct cause" in written[0]
    assert written[0].splitlines()[0].endswith("LookupError: no node")


def test_frames_of_fastlb_are_left_out(written: list[str]) -> None:
    def wrong() -> None:
        from fastlb.units import Duration

        Duration("1ms", "1h").read("x")

    report("shop:route", raised(wrong))
    assert "units.py" not in written[0]
    assert "in wrong" in written[0]
    rule_log.forget()
    report("shop:route", TypeError("a rule returns None, found 5"))
    assert written[1] == (
        "fastlb: error: rule shop:route failed: TypeError: a rule returns None, found 5\n"
    )


def test_hostile_texts(written: list[str]) -> None:
    """A message may have come with the request."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def throw(error: Exception) -> Callable[[], object]:
        def thrower() -> None:
            raise error

        return thrower

    report("a", raised(throw(ValueError("x\x1b[31m\r\nfastlb: error: all is lost\0"))))
    assert "\x1b" not in written[0]
    assert "\r" not in written[0]
    assert "\0" not in written[0]
    assert all(line.startswith(("fastlb: error: rule a ", "fastlb: rule a: "))
               for line in written[0].splitlines())  # fmt: skip
    report("b", raised(throw(ValueError("y" * 10_000_000))))
    assert len(written[1]) < rule_log.REPORT_BYTES_MAX
    report("c", raised(throw(ValueError("\udc80\ud800"))))
    report("d", raised(throw(ValueError("\n".join("z" * 100 for _ in range(10_000))))))
    assert len(written[3]) <= rule_log.REPORT_BYTES_MAX
    report("e", raised(throw(Unspeakable())))
    assert len(written) == 5


def test_endless_recursion(written: list[str]) -> None:
    def again() -> None:
        again()

    report("a", raised(again))
    assert "RecursionError" in written[0]
    assert len(written[0].splitlines()) < 150


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_what_is_no_exception(error: BaseException, written: list[str]) -> None:
    report("a", error)
    assert type(error).__name__ in written[0]


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", write)
    report("a", ValueError("x"))


def test_places_are_not_kept_for_ever(written: list[str]) -> None:
    for number in range(3 * rule_log.PLACES_MAX):
        report(f"rule{number}", ValueError("x"))
    assert len(rule_log._seen) <= rule_log.PLACES_MAX


def test_from_many_threads(written: list[str]) -> None:
    def fail() -> None:
        for _ in range(200):
            report("a", ValueError("x"))

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    assert next(iter(rule_log._seen.values())).left_out == 799


def test_it_is_one_system_call(capfd: pytest.CaptureFixture[str]) -> None:
    report("a", raised(divide))
    assert capfd.readouterr().err.count("\n") > 3
