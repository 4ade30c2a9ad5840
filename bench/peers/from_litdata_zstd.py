"""Rows from litdata as in from_litdata, from chunks compressed with zstd."""

import from_litdata
from worker import run

if __name__ == "__main__":
    from_litdata.COMPRESSION = "zstd"
    run(from_litdata.convert, from_litdata.open_batches)
