"""Names of licences: one name for none, and the same name for a name."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader.formats.licenses import UNKNOWN, license_name, split_licenses
from climbstream.loader.formats.manifest import ClusterEntry, Manifest, Size

STATED = st.text(st.sampled_from("aB,. \n…") | st.characters(), max_size=130)


@given(STATED)
def test_the_name_of_a_name_is_the_same(stated):
    name = license_name(stated)
    assert license_name(name) == name
    assert name
    assert "\n" not in name


@given(st.sampled_from(["", "unknown", "NOASSERTION", "none"]), st.data())
def test_no_licence_has_one_name_in_every_letter_case(word, data):
    cases = [data.draw(st.sampled_from([c.upper(), c.lower()])) for c in word]
    assert license_name(f" {''.join(cases)}\n") == UNKNOWN


def test_a_licence_beside_none_stays():
    assert license_name("MIT, NOASSERTION") == "MIT, unknown"
    assert license_name("NONE, unknown") == UNKNOWN
    assert split_licenses("None of these, MIT") == ["None of these", "MIT"]


@pytest.mark.parametrize(
    ("license_", "sizes", "read"),
    [
        ("MIT", {"MIT": 1, "unknown": 2}, "unknown, MIT"),
        ("MIT, NOASSERTION", {"MIT": 1, "NOASSERTION": 2}, "unknown, MIT"),
        ("unknown, MIT", {"MIT": 1, "unknown": 2}, "unknown, MIT"),
        ("MIT", {"MIT": 3}, "MIT"),
        ("MIT", {}, "MIT"),
    ],
)
def test_a_manifest_of_an_earlier_version_names_unknown_when_it_is_read(license_, sizes, read):
    counts = {name: Size(n, 10 * n) for name, n in sizes.items()}
    entry = ClusterEntry(name="c00", tokens=30, documents=3, index_hash="0", licenses=counts)
    manifest = Manifest(
        clusters=(entry,),
        dtype="uint16",
        vocab_size=9,
        eos_id=None,
        tokenizer_hash="",
        build="",
        license=license_,
    )
    assert Manifest.from_json(manifest.to_json()) == replace(manifest, license=read)
