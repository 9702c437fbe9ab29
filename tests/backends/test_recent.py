"""Recent: what it keeps, what makes room, and what counts as the same."""

import torch
from helios_video.helios_core.backends.recent import Recent, digest


class Source:
    """Something that values are made from."""


def test_content_is_told_apart_by_shape_too():
    x = torch.arange(6.0).view(2, 3)
    same = [x, x.clone(), x.t().contiguous().t()]
    assert len({digest(y.numpy()) for y in same}) == 1
    assert len({digest(y.numpy()) for y in (x, x.view(3, 2), x + 1e-6, x.double())}) == 4


def test_the_one_asked_for_longest_ago_makes_room_before_the_next_is_made():
    recent, there = Recent(2), []
    for key in "abacb":
        recent(key, lambda key=key: there.append((key, len(recent.kept))) or key)
    assert there == [("a", 0), ("b", 1), ("c", 1), ("b", 1)]
    recent.clear()
    assert recent("a", lambda: "anew") == "anew"


def test_a_value_belongs_to_the_very_objects_it_was_made_from_and_does_not_keep_them():
    recent, made, first, second = Recent(2), [], Source(), Source()
    for source in (first, first, second, first):
        recent("key", lambda: made.append(1), [source])
    assert len(made) == 2
    known = id(first)
    del first, source
    recent.kept["key", (known,)] = recent.kept.pop(("key", (known,)))  # as if another had taken its place in memory
    assert [s() is None for kept in recent.kept.values() for s in kept.sources] == [False, True]
