"""Published data sets: each document is read once, and no other file that a publication has."""

from climbstream.builder.corpus.published import MIXTURE, SHARDS, SHUFFLED, without_documents

TABLES = ["parquet/cluster_0/cluster_0_000.parquet", "parquet/cluster_id=law/0.parquet"]
SHUFFLED_TABLES = ["shuffled/part_00000.parquet", "shuffled/part_00001.parquet"]


def test_tables_of_clusters_are_read_and_not_the_shuffled_ones_beside_them():
    for top in ("", "a/b/", "hf://datasets/someone/web/"):
        paths = [top + path for path in (*TABLES, *SHUFFLED_TABLES)]
        expected = {top + path: SHUFFLED for path in SHUFFLED_TABLES}
        assert without_documents(paths) == expected


def test_shuffled_tables_alone_are_read():
    assert without_documents(SHUFFLED_TABLES) == {}
    assert without_documents([*SHUFFLED_TABLES, "other/parquet/cluster_0/0.parquet"]) == {}


def test_files_of_shards_and_of_a_mixture_are_no_documents():
    shards = ["manifest.json", "clusters.json", "documents/part-00000.parquet"]
    shards += ["clusters/c00/index.json", "groupings/three/grouping.json"]
    found = without_documents([*shards, *TABLES, *SHUFFLED_TABLES])
    assert found == {**dict.fromkeys(shards, SHARDS), **dict.fromkeys(SHUFFLED_TABLES, SHUFFLED)}
    mixture = ["mixture.json", "search/trials.jsonl"]
    assert without_documents([*mixture, *TABLES]) == dict.fromkeys(mixture, MIXTURE)


def test_files_of_others_with_such_names_are_read():
    names = ["manifest.json", "mixture.json", "search/a.jsonl", "shuffled/a.parquet"]
    assert without_documents(["clusters/a/b.json", *names]) == {}
