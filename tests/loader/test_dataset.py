"""MixtureDataset: what a DataLoader of torch gives is what the loader gives, from every step."""

import json
import subprocess
import sys
from itertools import chain, islice

import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from climbstream.loader import MixtureDataset, MixtureLoader
from climbstream.loader.core.errors import InvalidDataError, UsageError

STEPS = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {"c00": [20] * 30, "c01": [7] * 60}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def open_loader(shards):
    def open_(**given):
        kwargs = {"seq_len": 8, "batch_rows": 8, "seed": 17, "fields": ["labels"]}
        return MixtureLoader(shards.directory, **(kwargs | given))

    return open_


def as_lists(batches):
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in batches]


def test_a_dataloader_gives_the_batches_of_the_loader(open_loader):
    data = DataLoader(MixtureDataset(open_loader()), batch_size=None)
    expected = [*islice(open_loader(), STEPS)]
    assert as_lists(islice(data, STEPS)) == as_lists(expected)
    batch = next(iter(data))
    assert {name: (t.shape, t.dtype) for name, t in batch.items()} == {
        name: (t.shape, t.dtype) for name, t in expected[0].items()
    }


def test_iterating_anew_goes_on(open_loader):
    data = DataLoader(MixtureDataset(open_loader()), batch_size=None)
    parts = [as_lists(islice(data, steps)) for steps in (1, 4, 7)]
    assert [*chain(*parts)] == as_lists(islice(open_loader(), STEPS))


def test_a_state_describes_the_last_batch_that_the_dataloader_returned(open_loader):
    dataset, loader = MixtureDataset(open_loader()), open_loader()
    for _ in islice(DataLoader(dataset, batch_size=None), STEPS):
        next(loader)
        assert dataset.state_dict() == loader.state_dict()


def test_a_dataloader_goes_on_the_same_from_every_step(open_loader):
    dataset = MixtureDataset(open_loader())
    dataset.loader.set_weights({"c01": 1}, at_step=5, ramp=4)
    states, batches = [dataset.state_dict()], []
    for batch in islice(DataLoader(dataset, batch_size=None), STEPS):
        batches += as_lists([batch])
        states.append(json.loads(json.dumps(dataset.state_dict())))
    for step, state in enumerate(states):
        again = MixtureDataset(open_loader())
        again.load_state_dict(state)
        data = DataLoader(again, batch_size=None)
        assert as_lists(islice(data, STEPS - step)) == batches[step:]


def test_a_state_is_loaded_while_a_dataloader_is_iterated(open_loader):
    dataset = MixtureDataset(open_loader())
    batches = iter(DataLoader(dataset, batch_size=None))
    next(batches)
    state = dataset.state_dict()
    first = as_lists(islice(batches, 3))
    dataset.load_state_dict(state)
    assert as_lists(islice(batches, 3)) == first


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
def test_a_stateful_dataloader_goes_on_the_same_from_every_step(open_loader):
    data = StatefulDataLoader(MixtureDataset(open_loader()), batch_size=None)
    states, batches = [], []
    for batch in islice(data, STEPS):
        batches += as_lists([batch])
        states.append(data.state_dict())
    for step, state in enumerate(states, start=1):
        again = StatefulDataLoader(MixtureDataset(open_loader()), batch_size=None)
        again.load_state_dict(state)
        assert as_lists(islice(again, STEPS - step)) == batches[step:]


def test_a_state_of_another_run_is_refused(open_loader):
    state = MixtureDataset(open_loader(seed=1)).state_dict()
    with pytest.raises(InvalidDataError, match="saved with seed=1, this loader has seed=17"):
        MixtureDataset(open_loader()).load_state_dict(state)


def test_data_that_ends_ends_the_dataloader(open_loader):
    dataset = MixtureDataset(open_loader(max_epochs=1, on_exhausted="stop"))
    data = DataLoader(dataset, batch_size=None)
    steps = len([*data])
    assert steps == dataset.loader.step > 0
    assert [*data] == []


def test_the_length_of_a_dataset_is_that_of_its_loader(open_loader):
    data = DataLoader(MixtureDataset(open_loader(max_epochs=1)), batch_size=None)
    assert len(data) == len([*data])
    assert MixtureDataset(open_loader())
    with pytest.raises(TypeError, match="has no length"):
        len(MixtureDataset(open_loader()))


@pytest.mark.parametrize("changes", [{}, {"max_epochs": 1}])
def test_a_dataloader_of_the_bare_loader_says_what_to_do(open_loader, changes):
    with pytest.raises(TypeError, match=r"MixtureDataset\(loader\)"):
        next(iter(DataLoader(open_loader(**changes), batch_size=None)))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"batch_size": 2, "drop_last": True}])
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
def test_a_dataloader_that_would_stack_batches_says_what_to_do(open_loader, kind, options):
    dataset = MixtureDataset(open_loader())
    with pytest.raises(UsageError, match="stack whole batches of 8 rows each; make it DataLoader"):
        next(iter(kind(dataset, **options)))
    assert dataset.loader.step == 0


@pytest.mark.slow
def test_a_plain_trainer_says_what_to_do(open_loader, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=60_000, num_hidden_layers=1, **sizes))
    args = TrainingArguments(str(tmp_path), max_steps=2, report_to=[], use_cpu=True)
    trainer = Trainer(model, args, train_dataset=MixtureDataset(open_loader()))
    with pytest.raises(UsageError, match=r"def get_train_dataloader.*huggingface_trainer.py"):
        trainer.train()


REFUSED = """
import sys
from torch.utils.data import DataLoader
from climbstream.loader import MixtureDataset, MixtureLoader

if __name__ == "__main__":
    dataset = MixtureDataset(MixtureLoader(sys.argv[1], seq_len=8, batch_rows=8))
    data = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=sys.argv[2], timeout=60
    )
    next(iter(data))
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_are_refused(shards, tmp_path, start):
    # In a process of its own: one that has threads should not fork.
    script = tmp_path / "script.py"
    script.write_text(REFUSED)
    done = subprocess.run(
        [sys.executable, script, shards.directory, start],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "WorkersError" in done.stderr
    assert "Original Traceback" not in done.stderr
    assert "gains nothing: this process gathers rows faster" in done.stderr
    assert "make the DataLoader with num_workers=0" in done.stderr


def test_a_dataset_is_not_sent_to_another_process(open_loader):
    import pickle

    with pytest.raises(UsageError, match="make the DataLoader with num_workers=0"):
        pickle.dumps(MixtureDataset(open_loader()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_of_pinned_memory_stay_pinned(open_loader):
    data = DataLoader(MixtureDataset(open_loader(pin_memory=True)), batch_size=None)
    assert next(iter(data))["input_ids"].is_pinned()
