"""Old names of parameters: they work, and warn."""

import inspect

import pytest

from climbstream.loader.core.renamed import renamed_parameters


@renamed_parameters(part="fraction")
def serve(*, fraction=1.0):
    return fraction


def test_an_old_name_does_what_the_new_one_does_and_warns_where_it_was_called():
    with pytest.warns(DeprecationWarning, match="part is called fraction now") as caught:
        assert serve(part=0.5) == 0.5
    assert caught[0].filename == __file__


def test_the_new_name_does_not_warn(recwarn):
    assert serve(fraction=0.25) == 0.25
    assert not recwarn.list


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="part is called fraction now; give only fraction"):
        serve(part=0.5, fraction=0.5)


def test_help_shows_the_new_names_alone():
    assert list(inspect.signature(serve).parameters) == ["fraction"]
