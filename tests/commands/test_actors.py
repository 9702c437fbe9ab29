"""Actors that start, work, say nothing more and are lost, on a stand-in for Ray; Ray's own are in test_cluster.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from helios_video.helios_core.commands import actors


class Fault(Exception):
    """As Ray raises it where an actor is lost."""


class Stream:
    """What a unit says, an event at a time."""

    def __init__(self, events):
        self.events = iter(events)

    def __next__(self):
        return SimpleNamespace(value=next(self.events))


class FakeRay:
    """Actors live here. starts: of each actor that is begun, whether it comes up; None: it waits for room for ever.
    script(unit) -> events, of which a Fault is raised."""

    exceptions = SimpleNamespace(RayError=Fault)

    def __init__(self, script, starts=()):
        self.script, self.starts, self.begun, self.killed, self.units = script, list(starts), 0, [], []

    def remote(self, _):
        return self

    def options(self, **_):
        return SimpleNamespace(remote=self._begin)

    def _begin(self, *_):
        up = self.starts[self.begun] if self.begun < len(self.starts) else True
        self.begun += 1
        answer = SimpleNamespace(value=None if up else Fault("ValueError: no pack here"), up=up)
        work = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._work))
        return SimpleNamespace(ready=SimpleNamespace(remote=lambda: Hashed(answer)), work=work)

    def _work(self, unit, shared):
        self.units.append((unit, shared))
        return Stream(self.script(unit))

    def wait(self, given, **_):
        there = [one for one in given if isinstance(one, Stream) or one.answer.up is not None]
        return there[:1], []

    def get(self, ref):
        value = ref.answer.value if isinstance(ref, Hashed) else ref.value
        if isinstance(value, Fault):
            raise value
        return value

    def kill(self, actor):
        self.killed.append(actor)


class Hashed:
    def __init__(self, answer):
        self.answer = answer


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setattr(actors, "environment", dict)


def pool(script, count=2, starts=()):
    ray = FakeRay(script, starts)
    return actors.Pool(ray, object, (), count, {}), ray


def test_units_are_shared_out_and_a_later_run_takes_the_same_actors():
    made, ray = pool(lambda unit: [f"{unit}.1", f"{unit}.2"])
    assert sorted(made.run("abc", "rows")) == [(i, f"{u}.{k}") for i, u in enumerate("abc") for k in (1, 2)]
    assert ray.begun == 2 and ray.units[0] == ("a", "rows")
    assert len([*made.run("d")]) == 2 and ray.begun == 2
    made.close()
    assert len(ray.killed) == 2


def test_a_unit_whose_actor_is_lost_is_taken_up_and_given_up_after_three():
    fails = {"b": 1, "c": 9}

    def script(unit):
        yield "begun"
        if fails.get(unit, 0):
            fails[unit] -= 1
            yield Fault("long\nActorDiedError: the node died")
        yield "done"

    made, ray = pool(script)
    found = [*made.run("abc")]
    gone = [(i, event.again) for i, event in found if isinstance(event, actors.Gone)]
    assert gone.count((1, True)) == 1 and gone.count((2, True)) == 2 and gone[-1] == (2, False)
    assert all(event.why == "ActorDiedError: the node died" for _, event in found if isinstance(event, actors.Gone))
    assert [i for i, event in found if event == "done"].count(1) == 1
    assert len(ray.killed) == 4 and ray.begun <= 2 + 4


def test_an_actor_that_waits_for_room_keeps_no_unit():
    made, ray = pool(lambda unit: ["done"], starts=[None, True])
    assert sorted(made.run("abc")) == [(0, "done"), (1, "done"), (2, "done")] and ray.begun == 2


def test_actors_that_never_start_end_the_run_with_why():
    made, _ = pool(lambda unit: ["done"], starts=[False] * 20)
    with pytest.raises(ValueError, match="no actor can be started: ValueError: no pack here"):
        _ = [*made.run("abc")]


def test_the_first_that_can_do_nothing_ends_the_run_and_a_later_one_is_left_out():
    made, _ = pool(lambda unit: [actors.Unfit("no such model")])
    with pytest.raises(ValueError, match="no such model"):
        _ = [*made.run("abc")]
    unfit = ["b"]

    def script(unit):
        yield actors.Unfit("no such model here") if unit in unfit and unfit.pop() else "done"

    made, ray = pool(script)
    found = [*made.run("abc")]
    assert (1, actors.Gone("no such model here", True)) in found and made.count == 1 and len(ray.killed) == 1
    assert sorted(i for i, event in found if event == "done") == [0, 1, 2]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:many", "[::1]:1"])
def test_an_address_where_nothing_answers_is_refused_at_once(address):
    with pytest.raises(ValueError, match="nothing answers there"):
        actors.check_address(address)
    for other in ("auto", "local", "ray://head:10001"):
        actors.check_address(other)
