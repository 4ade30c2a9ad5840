"""Measure fastokens alone, the least work of climbstream."""

import json
import sys
from pathlib import Path

from measure import cpu_seconds
from tokenizers import Tokenizer

from climbstream.builder.writers.encoder import FastEncoder

work = Path(sys.argv[1])
texts = json.loads((work / "texts.json").read_text())
encoder = FastEncoder(Tokenizer.from_file(str(work / "tokenizer.json")))
print(cpu_seconds(lambda: encoder.encode(texts))[0])
