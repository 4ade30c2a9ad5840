"""Quality scores: text that is worth reading scores above what is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.features.quality import score_documents
from climbstream.builder.settings import SCORES, BuildSettings

PROSE = """\
The harbour at Lowmere was built in the autumn of 1803, when the river had moved its bed for the
second time and the old quay stood dry at every tide. The engineer in charge, a quiet man from the
north called Abel Thorne, had studied how sand behaves in moving water, and he knew that a wall
alone would not help. He therefore had two low dams laid across the mouth, so that the current would
become narrow and fast and carry the sand out by itself. It took eleven years and most of the money
that the town had, but it worked, and the method was copied in other places along the coast. What
makes his solution interesting even now is that he used no machine at all: the sea did the work.
"""
CODE = '''\
def read_lines(path, encoding="utf-8"):
    """Return the lines of a file that are not empty, without white space at their ends."""
    result = []
    with open(path, encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if not line:
                continue
            if line.startswith("#"):
                # A comment is kept where it says what the next line means.
                result.append((number, line[1:].strip()))
            else:
                result.append((number, line))
    return result


class Reader:
    """Reads the lines of many files, one after the other."""

    def __init__(self, paths):
        self.paths = list(paths)
        self.count = 0

    def __iter__(self):
        for path in self.paths:
            for number, line in read_lines(path):
                self.count += 1
                yield path, number, line
'''
TABLE = "year,month,t_min,t_max,rain\n" + "".join(
    f"{1950 + i // 12},{i % 12 + 1},{i * 37 % 19}.{i % 10},{i * 53 % 31}.{i % 7},{i * 91 % 140}\n"
    for i in range(120)
)
LOG = "".join(
    f"2024-03-{i % 28 + 1:02d}T{i % 24:02d}:{i * 7 % 60:02d}:12.{i:03d}Z kafka[{4000 + i}]: INFO "
    f"[ReplicaFetcher replicaId={i % 5}] partition=0x{i * 7919:08x} offset={i * 104729} ok=1\n"
    for i in range(80)
)
COOKIES = """\
We use cookies. Accept all cookies. Reject all. Manage your cookie consent settings. Privacy policy
Terms of use. Log in. Sign up. Subscribe to our newsletter. Follow us. Share this. Read more.
Necessary cookies. Analytics cookies. Marketing cookies. By using this site you accept cookies.
Cookie settings. Save consent. Learn more. All rights reserved. Privacy policy. Terms of service.
"""
SPAM = """\
BUY NOW!!! Best price guaranteed! Click here for a FREE offer, save up to 80% off on all deals!!!
Limited time offer, act now and order now! Cheap watches only $ 49.99, free shipping, money back
guarantee! Click here to subscribe, winner! Casino bonus $500.00, click click click! Discounts, buy
2 get 1 free, sale ends today!!! Order now!! Unsubscribe here. Click to buy cheap discount deals!
"""
WRECK = "\ufffd\ufffd \ufffd\ufffd\ufffd text \ufffd\ufffd \ufffd " * 40


def scores(text):
    return dict(zip(SCORES, score_documents([text])[0].tolist(), strict=True))


@pytest.mark.parametrize("good", [PROSE, CODE], ids=["prose", "code"])
@pytest.mark.parametrize("junk", [TABLE, LOG, WRECK], ids=["table", "log", "mangled text"])
def test_text_and_code_score_above_what_no_one_reads(good, junk):
    assert scores(good)["overall"] > scores(junk)["overall"] + 1


@pytest.mark.parametrize("junk", [COOKIES, SPAM], ids=["cookie notice", "spam"])
def test_text_and_code_score_above_what_wants_to_sell(junk):
    assert min(scores(PROSE)["advertisement"], scores(CODE)["advertisement"]) > (
        scores(junk)["advertisement"] + 1
    )


@pytest.mark.parametrize("text", [PROSE, CODE], ids=["prose", "code"])
def test_good_text_is_above_the_thresholds(text):
    settings = BuildSettings()
    for least in (settings.min_cluster_score, settings.min_document_score):
        assert all(scores(text)[name] >= low for name, low in least.items())


@pytest.mark.parametrize("text", [TABLE, LOG, WRECK, COOKIES, SPAM])
def test_junk_is_below_a_threshold_of_clusters(text):
    least = BuildSettings().min_cluster_score
    assert any(scores(text)[name] < low for name, low in least.items())


def test_prose_that_explains_is_more_educational_than_a_list_of_names():
    names = "\n".join(f"{a} {b}" for a in ("Anna", "Otto", "Ilse", "Karl") for b in PROSE.split())
    assert scores(PROSE)["educational"] > scores(names)["educational"]


@given(st.lists(st.text() | st.sampled_from([PROSE, SPAM, "", "\0", "\ud83d", "7" * 9000])))
def test_any_text_has_four_scores_from_0_to_5(texts):
    found = score_documents(texts)
    assert (found.shape, found.dtype) == ((len(texts), 4), np.float32)
    assert ((found >= 0) & (found <= 5)).all()


def test_a_text_has_the_same_scores_whatever_stands_beside_it():
    np.testing.assert_array_equal(score_documents([SPAM, PROSE])[1], score_documents([PROSE])[0])
