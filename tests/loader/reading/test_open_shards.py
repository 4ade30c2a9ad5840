"""Recent keeps what was used last, up to so many bytes."""

from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader.reading.open_shards import LRUCache

uses = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 40)), max_size=60)


@given(uses)
def test_what_is_kept_is_the_last_that_was_used_and_never_more_than_fits(steps):
    recent = LRUCache(100)
    kept = {}  # by use, the last one last
    for put, key, size in steps:
        if put:
            recent.put(key, (key, size), size)
            kept.pop(key, None)
            kept[key] = size
            while sum(kept.values()) > 100:
                del kept[next(iter(kept))]
        else:
            assert recent.get(key) == ((key, kept[key]) if key in kept else None)
            if key in kept:
                kept[key] = kept.pop(key)
    assert sum(size for key, size in kept.items() if recent.get(key)) <= 100


def test_a_value_larger_than_all_there_may_be_is_not_kept_and_sends_nothing_away():
    recent = LRUCache(100)
    recent.put("small", 1, 60)
    recent.put("large", 2, 101)
    assert recent.get("large") is None
    assert recent.get("small") == 1


def test_a_value_put_again_counts_once():
    recent = LRUCache(100)
    for _ in range(5):
        recent.put("a", 1, 60)
    recent.put("b", 2, 40)
    assert (recent.get("a"), recent.get("b")) == (1, 2)
