"""What the tests of the Hub share: its double, and the real clients turned to it."""

import os
import threading

import pytest
from climb_command import run_climb
from hub_double import TOKEN, Hub


@pytest.fixture
def hub():
    """The double, on loopback."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def silence():
    """Return what a request of the double can wait for: it ends with the test."""
    over = threading.Event()
    yield over.wait
    over.set()


@pytest.fixture
def client(hub, tmp_path, monkeypatch):
    """Turn the Hub's client in this process to the double, as one who may write."""
    from huggingface_hub import HfFileSystem, constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    resolve = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    HfFileSystem.clear_instance_cache()
    yield hub
    for thread in threading.enumerate():
        if thread.name.startswith("climbstream-fetch"):  # later, it would ask the real Hub
            thread.join(30)
    HfFileSystem.clear_instance_cache()


@pytest.fixture
def environment(hub, tmp_path):
    """Environment of a process whose Hub is the double."""
    return {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HOME": str(tmp_path),
        "CLIMBSTREAM_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def run(environment):
    """Return a function that runs the real command with the double as the Hub."""

    def call(*arguments, **more):
        return run_climb(*arguments, env={**environment, **more}, timeout=120)

    return call


@pytest.fixture(scope="session")
def directory(built):
    """A build of a few clusters."""
    return built.directory
