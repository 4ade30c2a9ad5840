"""Functions that damage a file of a known format, so that the result is often nearly valid.

Each function takes a `random.Random` and the bytes of a file, and returns changed bytes. The result
depends only on these arguments and the state of the generator.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Mutator = Callable[[random.Random, bytes], bytes]

_MARK = "@@{}@@"
VALUES = (
    "null true false 0 1 -1 0.5 -0.0 1e308 1e400 1e-320 NaN Infinity -Infinity [] {} [null] [[1]] "
    '"" "text" "1" "\\u0000" "\\ud800" "\\u001b[31mred" "\\n" "../../x" "/etc/passwd" "." '
    '{"a":1} [1,"a"]'
).split(" ")
"""JSON texts of values that a reader may not expect."""
VALUES += [
    "1" + "0" * 30,
    "9" * 5000,
    "-" + "9" * 40,
    str(1 << 31),
    str(1 << 63),
    str(1 << 64),
    '"' + "a" * 5000 + '"',
    "[" * 3000 + "]" * 3000,
    "[" * 200_000 + "]" * 200_000,
    '{"a":' * 3000 + "1" + "}" * 3000,
]
"""JSON texts of values that are very long or deeply nested."""
CELLS = [
    *("", " ", "NA", "nan", "inf", "-1", "1e400", "001", "0x10", "9" * 5000, "é", "a\nb", '"', "'"),
    *("\x1b[31mred", "\x00", "true", "../x", "a" * 200_000, "=1+1", ",", "\ufeff"),
]
"""Cells of a CSV table that a reader may not expect."""


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat, insert or re-encode bytes, independently of the format."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice([1, 4, 100, len(data)]))
    way = rng.randrange(11)
    if way == 0:
        return data[:at]
    if way == 1:
        return data[at:]
    if way == 2:
        return data[:at] + data[end:]
    if way == 3:
        return data[:end] + data[at:]
    if way == 4:
        return (
            data[:at]
            + rng.choice([b"\0", b"\xff", b"\xed\xa0\x80", b"\r", b'"', b"\n"])
            + data[at:]
        )
    if way == 5:
        return rng.choice([b"", b"\n", b"\xef\xbb\xbf" + data, data + b"\0" * 64, data + data])
    if way == 6:
        return data.decode("latin-1").encode(rng.choice(["utf-16", "utf-32", "utf-8"]))
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 8, 64])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def change_json(rng: random.Random, data: bytes) -> bytes:
    """Change some values, keys or lists of a JSON text."""
    if rng.random() < 0.15:
        return change_bytes(rng, data)
    value = json.loads(data)
    raw: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        value = _edit(rng, value, raw)
    text = json.dumps(value, indent=rng.choice([None, 1]))
    for number, one in enumerate(raw):
        text = text.replace(f'"{_MARK.format(number)}"', one)
    return (text + "\n").encode()


def change_lines(rng: random.Random, data: bytes) -> bytes:
    """Change, move, drop or repeat lines of a file of JSON lines."""
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    way = rng.randrange(12)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif way == 2:
        rng.shuffle(lines)
    elif way == 3:
        lines.insert(
            at, rng.choice([b"", b" ", b"null", b"[]", b"{}", b"1", b'"a"', b"\xff", b"{"])
        )
    elif way == 4:
        return change_bytes(rng, data)
    elif way == 5:
        return (b"\r\n" if rng.random() < 0.5 else b"\r").join(lines)
    else:
        lines[at] = change_json(rng, lines[at]).replace(b"\n", b" ").strip()
    return b"\n".join(lines) + b"\n"


def _edit(rng: random.Random, value: Any, raw: list[str]) -> Any:
    """Change one random place of ``value``, mostly in a nested value; return the changed value.

    A value that is replaced by a JSON text becomes a mark, and the text is appended to ``raw``.
    """
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        way = rng.randrange(12)
        if way == 0:
            del value[key]
        elif way == 1 and isinstance(value, dict):
            value[rng.choice(["", "x", "version", "../x", "\x1b[31m", str(key).upper()])] = (
                value.pop(key)
            )
        elif way == 1:
            value.insert(key, value[key])
        elif way == 2 and isinstance(value, dict):
            value["more"] = value[key]
        elif way == 2:
            rng.shuffle(value)
        elif way == 3:
            other = rng.choice(keys)
            value[key], value[other] = value[other], value[key]
        else:
            value[key] = _edit(rng, value[key], raw)
        return value
    if type(value) in (int, float) and rng.random() < 0.3:
        return value + rng.choice([-1, 1, 0.5, 1 << 32, -value, value])
    raw.append(rng.choice(VALUES))
    return _MARK.format(len(raw) - 1)


def change_table(rng: random.Random, data: bytes, delimiter: str = ",") -> bytes:
    """Change cells, rows or columns of a CSV text."""
    if rng.random() < 0.15:
        return change_bytes(rng, data)
    rows = list(csv.reader(io.StringIO(data.decode()), delimiter=delimiter))
    for _ in range(rng.choice([1, 1, 2, 5])):
        row = rng.choice([rows[0], rng.choice(rows)])
        at = rng.randrange(max(1, len(row)))
        way = rng.randrange(8)
        if way == 0:
            del row[at:]
        elif way == 1:
            row.insert(at, rng.choice(CELLS))
        elif way == 2:
            row += row
        elif way == 3:
            rows.insert(rng.randrange(len(rows)), rng.choice([[], [""], list(row), ["x"] * 2000]))
        elif way == 4:
            column = rng.choice(CELLS)
            for other in rows[1:]:
                other[at : at + 1] = [column]
        elif row:
            row[at : at + 1] = [rng.choice(CELLS)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    made = text.getvalue()
    if rng.random() < 0.2:
        made = made.replace('"', rng.choice(["", "'", '""', '"']), rng.randrange(1, 4))
    return made.encode(rng.choice(["utf-8"] * 6 + ["utf-16"]))


def _columns(rng: random.Random, n: int) -> list[Any]:
    """Return Arrow columns of ``n`` values, of types and values that a reader may not expect."""
    return [
        pa.nulls(n),
        pa.array([None if i % 3 else "x" for i in range(n)], "string"),
        pa.array([["a", None, "b"]] * n),
        pa.array([{"text": "a", "n": 1}] * n),
        pa.array([b"\xff\xfe text"] * n),
        pa.array(["copy"] * n).dictionary_encode(),
        pa.array([float("nan")] * n),
        pa.array([1 << 62] * n),
        pa.array([-1] * n),
        pa.array([[-1, 1 << 40]] * n),
        pa.array([[]] * n, pa.list_(pa.int32())),
        pa.array([[0.5, float("inf")]] * n),
        pa.array([True] * n),
        pa.array([0] * n, pa.timestamp("us")),
        pa.array([rng.choice(CELLS) for _ in range(n)]),
        pa.array(["9" * 5000] * n),
        pa.array([str(i) * 300 for i in range(n)]),
    ]


def change_columns(rng: random.Random, table: pa.Table) -> pa.Table:
    """Return a table with other columns, column names, values or rows."""
    for _ in range(rng.choice([1, 1, 2])):
        if not table.num_columns:
            break
        at = rng.randrange(table.num_columns)
        name, n = table.column_names[at], table.num_rows
        way = rng.randrange(6)
        if way == 0:
            table = table.remove_column(at)
        elif way == 1:
            names = [*table.column_names]
            names[at] = rng.choice(["", "x", names[0], name.upper(), "\x1b[31m"])
            table = table.rename_columns(names)
        elif way == 2:
            table = rng.choice(
                [table.slice(0, 0), pa.concat_tables([table, table]), table.slice(1, 1)]
            )
        else:
            made = rng.choice(_columns(rng, n))
            table = table.set_column(at, name, made)
    return table


def change_parquet(rng: random.Random, data: bytes) -> bytes:
    """Change the columns of a Parquet file, or its bytes."""
    if rng.random() < 0.4:
        return change_bytes(rng, data)
    file = io.BytesIO()
    pq.write_table(change_columns(rng, pq.read_table(io.BytesIO(data))), file)
    return file.getvalue()


def change_arrow(rng: random.Random, data: bytes) -> bytes:
    """Change the columns of an Arrow file, or its bytes."""
    if rng.random() < 0.4:
        return change_bytes(rng, data)
    table = change_columns(rng, pa.ipc.open_file(data).read_all())
    return arrow_bytes(table, rng.choice([pa.ipc.new_file, pa.ipc.new_stream]))


def arrow_bytes(table: pa.Table, writer: Any = pa.ipc.new_file) -> bytes:
    """Return the bytes of an Arrow file, or of an Arrow stream, depending on ``writer``."""
    file = io.BytesIO()
    with writer(file, table.schema) as sink:
        sink.write_table(table)
    return file.getvalue()


def change_packed(rng: random.Random, data: bytes, inner: Mutator, suffix: str) -> bytes:
    """Change the content of a compressed file by ``inner``, or change its compressed bytes."""
    pack, unpack = PACKINGS[suffix]
    way = rng.randrange(5)
    if way == 0:
        return change_bytes(rng, data)
    if way == 1:
        return data + rng.choice([b"\0" * 10, b"more", data, data[:20]])
    if way == 2:
        return rng.choice([unpack(data), pack(data), pack(b""), pack(b"0" * (1 << 26))])
    return pack(inner(rng, unpack(data)))


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gz": (lambda data: gzip.compress(data, mtime=0), gzip.decompress),
    "zst": (zstandard.compress, _unzstd),
    "bz2": (bz2.compress, bz2.decompress),
    "xz": (lzma.compress, lzma.decompress),
}


def change_shard(rng: random.Random, data: bytes) -> bytes:
    """Change the offset table, a sample or the zstd frame of an MDS shard."""
    raw = bytearray(zstandard.decompress(data))
    if rng.random() < 0.2:
        return change_bytes(rng, data)
    (samples,) = struct.unpack_from("<I", raw)
    for _ in range(rng.choice([1, 1, 3])):
        field = 4 * rng.randrange(samples + 2)
        (before,) = struct.unpack_from("<I", raw, field)
        number = rng.choice([0, 1, 0xFFFFFFFF, 0x80000000, len(raw), before + 1, before - 1])
        if rng.random() < 0.3:
            # Change the size, the dimensions or the length of a document instead.
            (field,) = struct.unpack_from("<I", raw, 4 * rng.randrange(1, samples + 1))
            field = min(field + rng.choice([0, 4, 5]), len(raw) - 4)
        struct.pack_into("<I", raw, field, number & 0xFFFFFFFF)
    made = bytes(raw) if rng.random() < 0.8 else change_bytes(rng, bytes(raw))
    if rng.random() < 0.2:
        return zstandard.ZstdCompressor(write_content_size=False).compress(made)
    return zstandard.compress(made) * rng.choice([1, 1, 1, 1, 2])


def change_shard_columns(rng: random.Random, data: bytes) -> bytes:
    """Change the header or some numbers of a file ``shards.columns``, or its bytes."""
    if rng.random() < 0.3:
        return change_bytes(rng, data)
    (size,) = struct.unpack_from("<I", data, 12)
    if rng.random() < 0.3:
        header = change_json(rng, data[16 : 16 + size])
        header += b" " * (-(16 + len(header)) % 32)
        return data[:12] + struct.pack("<I", len(header)) + header + data[16 + size :]
    raw = bytearray(data)
    for _ in range(rng.choice([1, 1, 3])):
        at = rng.randrange(8, len(raw), 4)
        (before,) = struct.unpack_from("<I", raw, at)
        number = rng.choice([0, 1, 0xFFFFFFFF, 0x80000000, before + 1, before - 1])
        struct.pack_into("<I", raw, at, number & 0xFFFFFFFF)
    return bytes(raw)


def change_npy(rng: random.Random, data: bytes) -> bytes:
    """Change the shape, type or values of an array in an .npy file, or its bytes."""
    if rng.random() < 0.4:
        return change_bytes(rng, data)
    array = np.atleast_1d(np.load(io.BytesIO(data), allow_pickle=False))
    if rng.random() < 0.4:
        shape = str(array.shape)
        other = rng.choice(["(10000000000, 16)", "(-1, 16)", "(0, 16)", "()", "(1,)", "(3, 4, 5)"])
        return data.replace(shape.encode(), other.encode(), 1)
    made = rng.choice(
        [
            lambda: array[:0],
            lambda: array[:1],
            lambda: np.ones(array.shape),
            lambda: array.astype("U8"),
            lambda: np.full(array.shape, np.nan),
            lambda: array[..., :3],
            lambda: np.asfortranarray(array),
            lambda: array.ravel(),
            lambda: np.array([{}], object),
        ]
    )()
    file = io.BytesIO()
    np.save(file, made, allow_pickle=True)
    return file.getvalue()


def change_npz(rng: random.Random, data: bytes) -> bytes:
    """Change or drop one array of an .npz file, or change the bytes of the archive."""
    if rng.random() < 0.3:
        return change_bytes(rng, data)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as there, zipfile.ZipFile(file, "w") as here:
        names = there.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = there.read(name)
            if name == chosen:
                if rng.random() < 0.2:
                    continue
                content = change_npy(rng, content)
            here.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()
