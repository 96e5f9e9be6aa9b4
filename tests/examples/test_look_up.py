"""look_up: remembers, asks once, forgets in time, and is not hurt by clients that leave."""

import asyncio

import pytest


class Directory:
    """A data base that answers when it is told to, and counts the questions."""

    def __init__(self, **homes: str):
        self.homes = homes
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def __call__(self, key: str) -> str | None:
        self.asked.append(key)
        await self.open.wait()
        if self.error:
            raise self.error
        return self.homes.get(key)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def LookUp(load):
    return load("look_up").LookUp


def test_an_answer_is_remembered_for_its_time(LookUp):
    async def story():
        clock, directory = Clock(), Directory(anna="a")
        look = LookUp(directory, ttl=30, clock=clock)
        assert [await look("anna") for _ in range(3)] == ["a"] * 3
        assert [await look("nobody") for _ in range(3)] == [None] * 3
        assert directory.asked == ["anna", "nobody"]
        directory.homes["anna"] = "b"
        clock.now += 29.9
        assert await look("anna") == "a"
        clock.now += 0.1
        assert await look("anna") == "b"
        look.forget("anna")
        await look("anna")
        assert directory.asked.count("anna") == 3

    asyncio.run(story())


def test_many_who_wait_ask_once(LookUp):
    async def story():
        directory = Directory(anna="a")
        directory.open.clear()
        look = LookUp(directory)
        waiting = [asyncio.create_task(look("anna")) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting[0].cancel()  # the client that asked first leaves
        directory.open.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == ["a"] * 49
        assert directory.asked == ["anna"]

    asyncio.run(story())


def test_an_error_is_for_all_who_wait_and_is_not_remembered(LookUp):
    async def story():
        directory = Directory(anna="a")
        directory.error = ConnectionError("away")
        look = LookUp(directory)
        answers = await asyncio.gather(look("anna"), look("anna"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionError] * 2
        directory.error = None
        assert await look("anna") == "a"
        assert len(directory.asked) == 2

    asyncio.run(story())


def test_an_error_that_nobody_waits_for_is_no_warning(LookUp, caplog):
    async def story():
        directory = Directory()
        directory.error = ConnectionError("away")
        directory.open.clear()
        look = LookUp(directory)
        alone = asyncio.create_task(look("anna"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.gather(alone, return_exceptions=True)
        directory.open.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert look._asking == {}

    asyncio.run(story())
    assert [record.message for record in caplog.records] == []


def test_the_oldest_goes_when_it_is_full(LookUp):
    async def story():
        directory = Directory()
        look = LookUp(directory, size=3)
        for key in "abcd":
            await look(key)
        for key in "bcd":
            await look(key)
        assert directory.asked == list("abcd")
        await look("a")
        assert directory.asked == list("abcda")

    asyncio.run(story())
