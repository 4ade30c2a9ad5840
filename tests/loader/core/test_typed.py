"""Whatever a file of JSON holds, reading it gives a value or an error of ours, and soon."""

import copy
import json
import random
import subprocess
import sys
import time

import pytest

from climbstream.loader import LoaderState, Manifest, Mixture
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import append_line, hash_json, read_json, read_lines, write_json
from climbstream.loader.core.typed import parse_json
from climbstream.loader.formats.clusters import ClusterInfo
from climbstream.loader.formats.manifest import ClusterEntry
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.weights.log import WeightsLog, WeightsRecord
from climbstream.loader.weights.request import UpdateRequest
from climbstream.loader.weights.schedule import Schedule
from climbstream.loader.weights.update import WeightsUpdate

HASH = "0" * 32
DIGITS, NEST = "@digits@", "@nest@"
ODD = [None, True, -1, 10**30, float("inf"), float("nan"), "x", [], {}, "\udcff", DIGITS, NEST]


def values():
    """A valid value of each format, and what reads it."""
    manifest = Manifest(
        clusters=(ClusterEntry(name="c00", tokens=3, documents=1, index_hash=HASH),),
        dtype="uint16",
        vocab_size=300,
        eos_id=0,
        tokenizer_hash="",
        build="",
        license="",
    )
    info = ClusterInfo(
        name="c00",
        terms=("a",),
        documents=1,
        tokens=3,
        bytes=5,
        quality={"overall": 1.0},
        labels={"web": 1},
        samples=({"id": "1", "text": "a"},),
        micro=(0,),
    )
    entry = ShardEntry("shard.00000.mds", 1, ((0, 0), (1, 3)), 90, HASH, 80, HASH)
    index = json.loads(Index.of("uint16", (entry,)).to_bytes())
    record = WeightsRecord.after(None, Mixture.of({"c00": 1, "c01": 3}), 0, "start")
    schedule = Schedule.of([(0, {"c00": 1}), (4, {"c01": 1}, 2)])
    request = UpdateRequest(WeightsUpdate(Mixture.of({"c00": 1}), 3, "why"), HASH)
    return {
        "manifest": (manifest.to_json(), Manifest.from_json),
        "clusters": (info.to_json(), ClusterInfo.from_json),
        "index": (index, None),
        "record": (record.to_json(), WeightsRecord.from_json),
        "schedule": (schedule.to_json(), Schedule.from_json),
        "request": (request.to_json(), UpdateRequest.from_json),
        "mixture": (Mixture.of({"c00": 1}).to_json(), Mixture.from_json),
        "state": (state(), LoaderState.from_json),
    }


def state():
    record = WeightsRecord.after(None, Mixture.of({"c00": 1, "c01": 3}), 0, "start")
    return LoaderState(
        step=3,
        served=12,
        seed=7,
        seq_len=8,
        batch_rows=4,
        lanes=2,
        pack="concat",
        data=HASH,
        clusters=["c00", "c01"],
        consumed=[[2, 1], [4, 5]],
        credit=[0, 0],
        weights=[record.to_json()],
    ).to_json()


def places(value, path=()):
    """Every place in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner if isinstance(value, dict | list) else ():
        yield (*path, key)
        if isinstance(one, dict | list):
            yield from places(one, (*path, key))


def mutants(value):
    """Texts of JSON that differ from ``value`` in one place, or are cut or flipped."""
    for path in places(value):
        for odd in [*ODD, "delete"]:
            other = copy.deepcopy(value)
            holder = other
            for key in path[:-1]:
                holder = holder[key]
            if odd == "delete":
                del holder[path[-1]]
            else:
                holder[path[-1]] = odd
            text = json.dumps(other)
            text = text.replace(f'"{DIGITS}"', "9" * 5000).replace(f'"{NEST}"', "[" * 100_000)
            yield text.encode()
    data, chance = json.dumps(value).encode(), random.Random(5)
    for _ in range(60):
        place = chance.randrange(len(data))
        yield data[:place]
        yield data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


@pytest.mark.parametrize("form", values())
def test_a_mangled_file_is_read_or_refused_as_invalid_or_damaged(form):
    value, read = values()[form]
    for data in mutants(value):
        began = time.monotonic()
        try:
            if read is None:
                Index.from_bytes(data, "uint16")
            else:
                read(parse_json(data, "file"))
        except (InvalidDataError, IntegrityError, UsageError) as error:
            said = str(error)
        else:
            said = ""
        assert len(said) < 2000
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "b": }', "^f is not JSON: Expecting value at line 2, column 7$"),
        (b'\n\n"\xff"', "line 3 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 200 + b"]" * 200, "nested over 100 levels"),
        (b"9" * 5000, "thousands of digits"),
    ],
)
def test_what_is_no_json_is_refused_with_its_line(data, message):
    with pytest.raises(InvalidDataError, match=message):
        parse_json(data, "f")


def test_an_error_names_the_field():
    value = values()["manifest"][0]
    value["clusters"][0]["tokens"] = "3"
    message = r"not a valid manifest: clusters\[0\]\.tokens: expected int, got str"
    with pytest.raises(InvalidDataError, match=message):
        Manifest.from_json(parse_json(json.dumps(value).encode(), "f"))


def test_a_field_that_a_format_lacks_is_refused_also_within():
    value = values()["manifest"][0]
    value["clusters"][0]["more"] = 3
    with pytest.raises(InvalidDataError, match="no field 'more'"):
        Manifest.from_json(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step: expected int >= 0"),
        ({"served": 13}, "of 13 rows in 2 lanes 7 are of lane 0, and it has 6"),
        ({"served": 0}, "3 batches cannot have had 0 rows"),
        ({"step": 13}, "13 batches cannot have had 12 rows"),
        ({"consumed": [[2, -1], [4, 2]]}, "it has 7|of lane"),
        ({"consumed": [[-2, 3], [8, -3]]}, "less than no rows"),
        ({"credit": [5, -4]}, "credit sums to 1"),
        ({"credit": [1 << 50, -(1 << 50)]}, "with 2 clusters it is within"),
        ({"clusters": ["c00", "c00"]}, "one name"),
        ({"clusters": ["c00", "c02"]}, "name c01, which is none of its clusters"),
        ({"part": 1.5}, "part is 1.5"),
        ({"lanes": 0}, "lanes is 0"),
        ({"weights": []}, "no weights"),
        ({"seed": "7"}, "seed: expected int, got str"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused_with_what_differs(change, message):
    assert LoaderState.from_json(state()).to_json() == state()
    with pytest.raises(InvalidDataError, match=message):
        LoaderState.from_json({**state(), **change})


def test_a_state_whose_weights_were_changed_is_damaged():
    value = state()
    value["weights"][0]["why"] = "other"
    with pytest.raises(IntegrityError, match="does not match its hash"):
        LoaderState.from_json(value)


def test_a_reason_that_is_not_utf8_becomes_text():
    assert WeightsUpdate(Mixture.of({"c00": 1}), 0, "caf\udcff").why == "caf\ufffd"


@pytest.mark.parametrize("raw", [False, True])
def test_a_log_with_a_reason_that_is_not_utf8_can_be_read_and_shown(tmp_path, raw):
    log = WeightsLog((), tmp_path / "weights.jsonl", write=True)
    log.append(Mixture.of({"c00": 1, "c01": 3}), 0, "caf\udcff")
    if raw:
        data = log.path.read_bytes()
        log.path.write_bytes(data.replace(b"\\udcff", b"\xff"))
        assert b"\xff" in log.path.read_bytes()
    assert WeightsLog.open(log.path, write=False).head == log.head

    code = "import sys; from climbstream.loader.cli.main import main; main()"
    for more in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "weights", str(tmp_path), *more], capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert b"caf" in done.stdout


def test_json_with_a_lone_surrogate_is_written_and_read_again(tmp_path):
    write_json(tmp_path / "a", {"name": "caf\udcff"})
    append_line(tmp_path / "b", {"name": "caf\udcff"})
    assert read_json(tmp_path / "a") == read_lines(tmp_path / "b")[0] == {"name": "caf\udcff"}
    assert hash_json(read_json(tmp_path / "a")) == hash_json({"name": "caf\udcff"})
