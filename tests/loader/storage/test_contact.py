"""A place that cannot be reached at first contact is given up soon; later it is waited for."""

import socket
import time

import pytest

from climbstream.builder.publisher.upload import Publisher
from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.errors import RemoteError, UsageError
from climbstream.loader.storage import retry
from climbstream.loader.storage.contact import is_unreachable, note_answer
from climbstream.loader.storage.hub import cache_unless_reached, find_commit
from climbstream.loader.storage.s3_files import file_system
from climbstream.loader.storage.store import Store

CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture(autouse=True)
def _nobody_has_answered(monkeypatch):
    monkeypatch.setenv("CLIMBSTREAM_ANSWERED", "")


@pytest.mark.parametrize("url", [f"{CLOSED}/x", "http://nosuch.invalid/x", "s3://bucket/x"])
def test_a_first_contact_that_fails_ends_soon(url, monkeypatch):
    for name in ("KEY_ID", "SECRET_ACCESS"):
        monkeypatch.setenv(f"AWS_{name}", "none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", CLOSED)
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=r"could not be read in [0-4]\.\d s: try [2-9]"):
        Manifest.load(url)
    assert time.monotonic() - begun < 5


def test_so_it_does_with_the_hub(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", CLOSED)
    begun = time.monotonic()
    with pytest.raises(
        RemoteError,
        match=r"^the Hub cannot be reached: try \d, after [0-4]\.\d s, ended with .*; check the",
    ):
        find_commit("a/b", None)
    assert time.monotonic() - begun < 5


def test_without_contact_data_sets_come_from_the_cache_or_the_error_says_why(monkeypatch):
    datasets = pytest.importorskip("datasets")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", CLOSED)
    begun = time.monotonic()
    with cache_unless_reached():
        assert datasets.config.HF_HUB_OFFLINE
    with (
        pytest.raises(RemoteError, match="the Hub cannot be reached: try"),
        cache_unless_reached(),
    ):
        datasets.load_dataset("nobody/has_this")
    assert not datasets.config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "ask",
    [
        lambda: find_commit("a/b", None),
        lambda: Manifest.load("hf://a/b"),
        lambda: file_system("hf://datasets/a/b/README.md"),
        lambda: Mixture.uniform(["a"]).push_to_hub("a/b"),
        lambda: Publisher("a/b").check_login(),
    ],
)
def test_a_client_that_is_told_not_to_ask_the_hub_is_named_at_once(monkeypatch, ask):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "none")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"the Hub is not asked, because HF_HUB_OFFLINE .*unset"):
        ask()


def test_a_place_that_has_answered_is_waited_for_also_by_processes_started_later(monkeypatch):
    monkeypatch.setattr(retry._JITTER, "uniform", lambda low, high: low)  # The shortest pauses.
    note_answer(CLOSED)
    with pytest.raises(RemoteError, match=r"could not be read in (3\.[7-9]|[45]\.\d) s"):
        Store.of(CLOSED, all_seconds=6).read("file")


def test_an_error_of_another_kind_is_no_unreachable_place():
    assert not is_unreachable(TimeoutError("no answer within 3 s"))
    assert not is_unreachable(ValueError("the answer is a web page"))
    assert is_unreachable(socket.gaierror(-2, "Name or service not known"))
    of_client = RuntimeError("of a client")
    of_client.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert is_unreachable(of_client)
