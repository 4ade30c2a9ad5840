"""The picture of a mixture shows each weight beside the token share, in an SVG file of its own."""

from xml.etree import ElementTree

from climbstream.builder.publisher.mixture_chart import MOST_ROWS, mixture_chart
from climbstream.loader.formats.mixture import Mixture

SVG = "{http://www.w3.org/2000/svg}"


def texts(data):
    """Texts of the picture, from top to bottom."""
    root = ElementTree.fromstring(data)
    assert root.tag == f"{SVG}svg"
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_each_cluster_has_its_weight_beside_its_token_share():
    chart = mixture_chart(
        Mixture({"c01": 1.0}), Mixture.of({"c00": 3, "c01": 1}), {"c00": "sea & <sail>"}
    )
    assert texts(chart)[2:] == [
        "c01",
        "100.0% against 25.0%",
        "c00 sea & <sail>",
        "0.0% against 75.0%",
    ]
    widths = [float(bar.get("width")) for bar in ElementTree.fromstring(chart).iter(f"{SVG}rect")]
    assert widths[3:] == [360, 90, 0, 270]


def test_the_smallest_of_many_clusters_are_one_row():
    many = Mixture.of({f"c{n:02d}": 1 if n < 50 else 950 for n in range(51)})
    shown = texts(mixture_chart(Mixture({"c07": 1.0}), many, {}))[2:]
    assert len(shown) == 2 * MOST_ROWS
    assert shown[:2] == ["c07", "100.0% against 0.1%"]
    assert "c50" in shown
    assert shown[-2:] == ["28 other clusters", "0.0% against 2.8%"]


def test_long_words_are_cut():
    shown = texts(
        mixture_chart(Mixture({"c00": 1.0}), Mixture({"c00": 1.0}), {"c00": "words " * 20})
    )
    assert shown[2] == "c00 words words words words words…"
