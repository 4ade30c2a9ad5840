"""Pages work in a browser: sorting, searching, pointing, light and dark, narrow and wide."""

import math
import re

import pytest

from climbstream.loader.core.html_page import (
    Series,
    heat_map,
    page,
    paragraph,
    scatter_plot,
    section,
    small_curve,
    table,
)

EVIL = "<script>document.title = 'run'</script><img src=x onerror=alert(1)>"


def made(count=60):
    """A page of a table of ``count`` clusters, the plots, and text that would run as markup."""
    rows = [
        (f"<code>c{k:02d}</code>", "word " * 12, f"{1000 * (k * 7 % count):,}", f"{k}.5% ± .1")
        for k in range(count)
    ]
    points = [(float(i), 2.0 + i % 7 / 10) for i in range(40)]
    series = [Series(name=EVIL, color="r0", points=points, sds=[0.1] * 40, tips=[EVIL] * 40)]
    names = [f"c{k:02d} words" for k in range(count)]
    return page(
        f"Page {EVIL}",
        EVIL,
        [
            section("Clusters", table(("cluster", "words", "tokens", "share"), rows, (2, 3), (1,))),
            section("Plots", scatter_plot(series, "proxy", EVIL, [("base", 2.2)])),
            section("Weights", heat_map(names, [[0.5] * count] * 30, [("round 1", 30)], "weights")),
            section("Curves", small_curve("c00", [(0.0, 1.0), (1.0, 2.0)], (1.0, 2.0), EVIL)),
            section("Text", paragraph(EVIL)),
        ],
    )


def test_two_sections_with_one_heading_are_a_mistake():
    with pytest.raises(ValueError, match="one heading"):
        page("", "", [section("The clusters"), section("The clusters")])


def test_a_page_without_points_or_spread_is_drawn_too():
    assert scatter_plot([], "x", "y") == ""
    assert "circle" in scatter_plot([Series(name="a", color="r0", points=[(1, 1)])], "x", "y")
    assert "circle" in scatter_plot(
        [Series(name="a", color="r0", points=[(1, 5.0), (2, 5.0)])], "x", "y", diagonal=True
    )


def test_bars_of_errors_end_within_the_drawing():
    series = Series(name="a", color="r0", points=[(1, 1.0), (2, 1.1)], sds=[5.0, math.inf])
    (bar,) = re.findall(r'<path d="M[\d.]+ ([\d.]+)V([\d.]+)"', scatter_plot([series], "x", "y"))
    top, low = map(float, bar)
    assert 26 <= top < low <= 320 - 40


def test_a_long_name_in_a_heat_map_is_cut_where_its_room_ends():
    names = ["c03 written, incrementaldecoder", "c04 路径操作"]
    html = heat_map(names, [[0.5, 1.0]], [("a", 1)], "weights")
    assert ">c03 written, incrementald…<" in html
    assert ">c04 路径操作<" in html


@pytest.fixture
def shown(browser, tmp_path):
    """Return a function that opens a page at a width, and returns the browser."""

    def show(data=None, width=1280, scheme="light"):
        (tmp_path / "page.html").write_bytes(made() if data is None else data)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        browser.get((tmp_path / "page.html").as_uri())
        return browser

    return show


def column(browser, number):
    rows = browser.find_elements("css selector", "#clusters tbody tr")
    return [
        row.find_elements("css selector", "td")[number].text for row in rows if row.is_displayed()
    ]


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


@pytest.mark.slow
def test_a_column_is_sorted_by_its_numbers_with_the_keyboard_alone(shown):
    from selenium.webdriver import Keys

    browser = shown()
    for _ in range(30):
        press(browser, Keys.TAB)
        if browser.switch_to.active_element.text == "tokens":
            break
    press(browser, Keys.ENTER)
    head = browser.find_element("css selector", "#clusters th:nth-child(3)")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(browser, 2)[:3] == ["59,000", "58,000", "57,000"]
    press(browser, Keys.SPACE)
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(browser, 2)[:3] == ["0", "1,000", "2,000"]
    press(browser, Keys.TAB, Keys.ENTER)
    assert column(browser, 3)[0] == "59.5% ± .1"
    assert head.get_attribute("aria-sort") is None


@pytest.mark.slow
def test_a_long_table_is_searched_and_unfolded(shown):
    browser = shown()
    assert len(column(browser, 0)) == 40
    tools = browser.find_element("css selector", "#clusters .tools")
    assert "40 of 60 shown" in tools.text
    search = tools.find_element("css selector", "input")
    search.send_keys("C5")
    assert column(browser, 0) == [f"c5{i}" for i in range(10)]
    assert "10 of 60 shown" in tools.text
    search.clear()
    search.send_keys(" ")
    tools.find_element("css selector", "button").click()
    assert len(column(browser, 0)) == 60


@pytest.mark.slow
def test_pointing_at_a_mark_or_reaching_it_by_key_says_what_it_is(shown):
    from selenium.webdriver import ActionChains, Keys

    browser = shown()
    circle = browser.find_element("css selector", "circle")
    ActionChains(browser).move_to_element(circle).perform()
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed()
    assert tip.text.startswith(f"{EVIL}: 2\n")
    press(browser, Keys.ESCAPE)
    assert not tip.is_displayed()
    browser.execute_script("document.querySelector('figure[data-tip]').focus()")
    assert tip.text == EVIL


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_a_page_is_as_wide_as_the_screen_and_wide_parts_scroll_in_their_own_box(shown, width):
    browser = shown(width=width)
    across = browser.execute_script("return document.documentElement.scrollWidth")
    assert across <= width
    size = "return parseFloat(getComputedStyle(document.body).fontSize)"
    assert browser.execute_script(size) >= 15
    plot = browser.execute_script(
        "const s = document.querySelector('#plots svg'), b = s.getBoundingClientRect();"
        "return b.width / s.viewBox.baseVal.width * 13"
    )
    assert plot >= 9.5


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390])
def test_a_column_of_words_is_no_wider_than_the_screen_however_long_a_word_is(shown, width):
    rows = [("<code>c00</code>", "incrementaldecoder" * 4, "1,000")]
    heads = ("cluster", "words", "tokens")
    browser = shown(page("Page", "", [section("A", table(heads, rows, (2,), (1,)))]), width)
    wide, room = browser.execute_script(
        "const d = document.querySelector('.wide'); return [d.scrollWidth, d.clientWidth]"
    )
    assert wide <= room


@pytest.mark.slow
def test_light_and_dark_follow_the_system_and_the_button(shown):
    back = "return getComputedStyle(document.body).backgroundColor"
    assert shown(scheme="light").execute_script(back) == "rgb(255, 255, 255)"
    browser = shown(scheme="dark")
    assert browser.execute_script(back) == "rgb(20, 23, 27)"
    browser.find_element("css selector", "nav button").click()
    assert browser.execute_script(back) == "rgb(255, 255, 255)"


@pytest.mark.slow
def test_nothing_from_data_runs_and_nothing_is_fetched(shown):
    browser = shown()
    assert browser.title == f"Page {EVIL}"
    assert browser.find_elements("css selector", "img, link, iframe") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
    injected = made().replace(b"</html>", b"<script>document.title = 'run'</script></html>")
    assert shown(injected).title == f"Page {EVIL}"


@pytest.mark.slow
def test_a_thousand_clusters_are_open_in_a_moment(shown):
    browser = shown(made(1000))
    loaded = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    # A second on a machine that does nothing else; tests share theirs.
    assert 0 < browser.execute_script(loaded) < 5_000
    assert len(column(browser, 0)) == 40
