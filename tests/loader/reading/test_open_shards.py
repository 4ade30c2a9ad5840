"""An LRU cache keeps what was used last, up to so many bytes."""

from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader.reading.open_shards import LRUCache

uses = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 40)), max_size=60)


@given(uses)
def test_what_is_kept_is_the_last_that_was_used_and_never_more_than_fits(steps):
    cache = LRUCache(100)
    kept = {}  # by use, the last one last
    for put, key, size in steps:
        if put:
            cache.put(key, (key, size), size)
            kept.pop(key, None)
            kept[key] = size
            while sum(kept.values()) > 100:
                del kept[next(iter(kept))]
        else:
            assert cache.get(key) == ((key, kept[key]) if key in kept else None)
            if key in kept:
                kept[key] = kept.pop(key)
    assert sum(size for key, size in kept.items() if cache.get(key)) <= 100


def test_a_value_larger_than_all_there_may_be_is_not_kept_and_sends_nothing_away():
    cache = LRUCache(100)
    cache.put("small", 1, 60)
    cache.put("large", 2, 101)
    assert cache.get("large") is None
    assert cache.get("small") == 1


def test_a_value_put_again_counts_once():
    cache = LRUCache(100)
    for _ in range(5):
        cache.put("a", 1, 60)
    cache.put("b", 2, 40)
    assert (cache.get("a"), cache.get("b")) == (1, 2)
