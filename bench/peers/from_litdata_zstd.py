"""Rows from litdata as in from_litdata, from chunks compressed with zstd.

It decompresses a chunk once, when it first needs it, and puts it in the place of the packed one.
"""

import from_litdata
from worker import run

if __name__ == "__main__":
    from_litdata.COMPRESSION = "zstd"
    run(from_litdata.convert, from_litdata.open_batches)
