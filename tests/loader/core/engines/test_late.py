"""LateEngine: an engine is opened when the first tasks are run, once, and ended with the block."""

from climbstream.loader.core.engines.late import LateEngine


class Noted:
    """An engine that notes what becomes of it."""

    workers = 3

    def __init__(self):
        self.noted = ["opened"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.noted.append("ended")

    def run(self, function, tasks, *_, **__):
        """Yield each task with its result."""
        self.noted.append("ran")
        return ((task, function(task)) for task in tasks)


def test_an_engine_that_runs_nothing_is_not_opened():
    opened = []
    with LateEngine(lambda: opened.append(Noted()) or opened[-1]):
        pass
    assert opened == []


def test_an_engine_is_opened_once_and_ended_with_the_block():
    opened = []
    with LateEngine(lambda: opened.append(Noted()) or opened[-1]) as engine:
        assert dict(engine.run(abs, [-1, 2])) == {-1: 1, 2: 2}
        assert engine.workers == 3
        assert dict(engine.run(str, [7])) == {7: "7"}
    assert [each.noted for each in opened] == [["opened", "ran", "ran", "ended"]]
