"""Proxy models are named by size, and their weights by seed."""

import pytest
import torch

from climbstream.loader.core.errors import UsageError
from climbstream.search.training.model import SIZES, make_model


def test_a_size_that_is_unknown_is_told_those_that_there_are():
    with pytest.raises(
        UsageError, match=r"no model 'huge'; the models are tiny, mini, small, medium"
    ):
        make_model("huge", 300, 64, 0)


def test_the_seed_decides_the_weights():
    one, same, other = (make_model("tiny", 300, 64, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_the_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make_model("tiny", 300, 64, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.2), ("mini", 1), ("small", 7)])
def test_a_size_has_the_parameters_that_are_said(size, millions):
    assert make_model(size, 1024, 64, 0).num_parameters() / 1e6 == pytest.approx(millions, rel=0.2)


def test_heads_divide_the_width():
    assert all(shape.width % shape.heads == 0 for shape in SIZES.values())


def test_a_fresh_model_knows_nothing():
    model = make_model("tiny", 300, 64, 0)
    tokens = torch.randint(300, (4, 64), generator=torch.Generator().manual_seed(0))
    logits = model(input_ids=tokens).logits
    assert logits.shape == (4, 64, 300)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(300.0).log().item(), abs=1)
