"""Serve rows from litdata as from_litdata does, but from chunks compressed with zstd.

litdata decompresses a chunk when it first needs the chunk, and replaces the compressed file.
"""

import from_litdata
from worker import run

if __name__ == "__main__":
    from_litdata.COMPRESSION = "zstd"
    run(from_litdata.convert, from_litdata.open_batches)
