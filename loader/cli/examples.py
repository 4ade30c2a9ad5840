"""Two examples of each command, for ``--help``; tests check that ``climb`` can parse each one."""

EXAMPLES = {
    "demo": (
        "climb demo --out demo",
        "climb demo --source corpus.jsonl --label source --budget 8 --out demo",
    ),
    "build": (
        "climb build corpus/*.jsonl.zst --out shards/web --clusters 20 --holdout 0.02",
        "climb build hub:wikimedia/wikipedia@20231101.de --out shards/de --languages de",
    ),
    "dropped": (
        "climb dropped shards/web --why 'low overall' --sample 5",
        "climb dropped shards/web --language de --ids",
    ),
    "import": (
        "climb import hub:nvidia/Nemotron-ClimbLab --out shards/climblab --tokenizer gpt2",
        "climb import rows.parquet --cluster topic --out shards/topics",
    ),
    "export": (
        "climb export shards/web --to jsonl --text --out rows",
        "climb export shards/web --to parquet --mixture mixture.json --tokens 10M --out drawn",
    ),
    "publish": (
        "climb publish shards/web me/web --private --dry-run",
        "climb publish shards/web me/web-tables --what parquet --text",
    ),
    "pull": (
        "climb pull me/web shards/web",
        "climb pull me/web shards/web --mixture hf://me/web --dry-run",
    ),
    "inspect": (
        "climb inspect shards/web",
        "climb inspect hf://datasets/me/web --json",
    ),
    "verify": (
        "climb verify shards/web",
        "climb verify s3://bucket/shards/web --json",
    ),
    "search": (
        "climb search shards/web --target cluster=c03 --budget 28 --out search/c03",
        "climb search shards/web --target tasks/piqa.jsonl --base base/model --out search/piqa",
    ),
    "fit": (
        "climb fit runs.csv --target loss --out fit",
        "climb fit weights.csv scores.csv --target piqa=max --weights 'domain_*'",
    ),
    "compare": (
        "climb compare search/c03 search/piqa",
        "climb compare run1 run2 run3 --out compare.html",
    ),
    "train": (
        "climb train shards/web --tokens 10M --out run",
        "climb train shards/web --mixture search/c03/mixture.json --tokens 1e7 --out run",
    ),
    "score": (
        "climb score run/model shards/web --target cluster=c03",
        "climb score ~/models/gpt2 shards/web --target tasks/piqa.jsonl --target book.txt",
    ),
    "weights": (
        "climb weights run",
        "climb weights run c03=0.4 --ramp 500 --why anneal",
    ),
    "audit": (
        "climb audit run",
        "climb audit run --shards s3://bucket/shards/web --json",
    ),
    "monitor": (
        "climb monitor run",
        "climb monitor run --port 8080",
    ),
    "explain": (
        "climb explain run --step 1000",
        "climb explain run --step 1000 --row 3 --text",
    ),
    "doctor": (
        "climb doctor",
        "climb doctor --json",
    ),
    "contamination": (
        "climb contamination shards/web lm-eval=arc_easy",
        "climb contamination shards/web tasks/piqa.jsonl --out contamination.json",
    ),
    "regroup": (
        "climb regroup shards/web --by groups.json --name topics",
        "climb regroup shards/web --by topic,tier",
    ),
}
"""Examples by name of the command; each example is one line for a shell."""
