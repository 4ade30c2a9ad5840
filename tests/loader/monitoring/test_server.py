"""The monitor shows a running job to who has the token, on this machine alone."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from climb_command import ClimbProcess

from climbstream.loader.core.files import append_line
from climbstream.loader.formats.clusters import ClusterInfo, save_clusters
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.monitoring import server as monitoring
from climbstream.loader.monitoring.run_status import RunStatus
from climbstream.loader.monitoring.server import MonitorServer
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import LOG, REQUEST

JOB = """
import sys, time
from pathlib import Path
from climbstream.loader import MixtureLoader
from climbstream.loader.monitoring.cluster_loss import ClusterLoss
from climbstream.loader.monitoring.metrics import append_metrics
shards, run = sys.argv[1:]
loader = MixtureLoader(shards, {"c00": 0.5, "c01": 0.5}, seq_len=8, batch_rows=8,
    weights_log=f"{run}/weights.jsonl", weights_file=f"{run}/weights.request.json")
losses = ClusterLoss(loader.names)
for batch in loader:
    time.sleep(0.005)
    losses.add(batch["cluster_ids"], batch["cluster_ids"] + 2.0)
    if loader.step % 20 == 0:
        path, loss = Path(run) / "metrics.jsonl", 3 - loader.step / 1e5
        append_metrics(path, loader.metrics(), loss=loss, cluster_loss=losses.take())
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    documents = counted_documents({"c00": [11] * 40, "c01": [5] * 80})
    return make_shards(tmp_path_factory.mktemp("shards"), documents)


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    """Return the folder of a job that runs."""
    folder = tmp_path_factory.mktemp("run")
    job = subprocess.Popen([sys.executable, "-c", JOB, str(shards.directory), str(folder)])
    try:
        wait_for(lambda: (folder / "metrics.jsonl").exists())
        yield folder
    finally:
        job.kill()
        job.wait()


@pytest.fixture
def monitor(run):
    with MonitorServer(RunStatus(run)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def send(monitor, method, path, body=None, token=True, **headers):
    """Return status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", monitor.server_port, timeout=20)
    if token:
        headers = {"Authorization": f"Bearer {monitor.token}", **headers}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def ask(monitor, **value):
    status, _, data = send(monitor, "POST", "/weights", json.dumps(value))
    return status, json.loads(data)


def test_it_listens_on_the_loopback_address_alone(monitor):
    assert monitor.server_address[0] == "127.0.0.1"
    assert monitor.url == f"http://127.0.0.1:{monitor.server_port}/#{monitor.token}"


def test_the_page_needs_no_token_and_tells_nothing(monitor, run):
    status, headers, data = send(monitor, "GET", "/", token=False)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert monitor.token.encode() not in data
    assert str(run).encode() not in data
    assert b"http://" not in data.replace(b"http://www.w3.org/2000/svg", b"")


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer no", "Basic é"])
def test_without_the_token_there_is_no_state_and_no_change(monitor, run, given):
    headers = {"Authorization": given.encode("latin-1")} if given else {}
    for method, path in (("GET", "/state"), ("POST", "/weights")):
        status, _, data = send(monitor, method, path, "{}", token=False, **headers)
        assert status == 401
        assert "open the address that climb monitor printed" in json.loads(data)["error"]
    assert not (run / REQUEST).exists()


def test_another_host_or_site_is_refused(monitor):
    port = monitor.server_port
    assert send(monitor, "GET", "/state", Host=f"evil.example:{port}")[0] == 403
    assert send(monitor, "GET", "/", token=False, Host=f"evil.example:{port}")[0] == 403
    for origin in ("http://evil.example", f"http://127.0.0.1:{port + 1}", "null"):
        assert send(monitor, "POST", "/weights", "{}", Origin=origin)[0] == 403
    assert send(monitor, "GET", "/state", Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_other_paths_and_methods_are_refused(monitor):
    assert send(monitor, "GET", "/../weights.jsonl")[0] == 404
    assert send(monitor, "GET", "/metrics.jsonl")[0] == 404
    assert send(monitor, "POST", "/state", "{}")[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert send(monitor, method, "/weights")[0] == 501


def test_a_body_that_is_too_long_or_has_no_length_is_not_read(monitor):
    assert send(monitor, "POST", "/weights", **{"Content-Length": str(10**9)})[0] == 413
    assert send(monitor, "POST", "/weights", **{"Content-Length": "-1"})[0] == 413


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\xff",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"POST /weights HTTP/1.1\r\n%s: \xc2\xb2\r\n\r\n",
        b"POST /weights HTTP/1.1\r\n%s: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /weights HTTP/1.1\r\n%s: 5\r\n\r\nab",
        b"POST /weights HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=range(14),
)
def test_a_request_that_is_none_ends_its_connection_alone(monitor, capfd, request_):
    head = f"Host: 127.0.0.1:{monitor.server_port}\r\nAuthorization: Bearer {monitor.token}\r\n"
    request_ = request_.replace(b"%s", head.encode() + b"Content-Length")
    address = ("127.0.0.1", monitor.server_port)
    # A reset by the server shows as ENOTCONN at `shutdown`, which is no ConnectionError.
    with suppress(OSError), socket.create_connection(address, timeout=20) as one:
        one.sendall(request_)
        one.shutdown(socket.SHUT_WR)
        while one.recv(1 << 16):
            pass
    assert send(monitor, "GET", "/state")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_length_of_thousands_of_digits_is_refused(monitor):
    assert send(monitor, "POST", "/weights", **{"Content-Length": "9" * 5000})[0] == 413


def test_who_says_nothing_does_not_stop_the_others(monitor):
    with socket.create_connection(("127.0.0.1", monitor.server_port)) as silent:
        silent.sendall(b"POST /weights HTTP/1.1\r\n")
        assert send(monitor, "GET", "/state")[0] == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "a change must be a JSON object with the field weights"),
        ({"weights": []}, "'weights' must be numbers by cluster"),
        (
            {"weights": {"c07": 1}},
            "there is no cluster c07 in the weights log; its clusters are c00, c01",
        ),
        ({"weights": {"c00": 2}}, "the named weights sum to 2, more than 1"),
        ({"weights": {"c00": -1}}, "the weight of cluster 'c00' is -1"),
        ({"weights": {"c00": "1"}}, "the weight of cluster 'c00' is '1'"),
        ({"weights": {"c00": 0.5}, "ramp": 0.5}, "a ramp takes a whole number of steps"),
        ({"weights": {"c00": 0.5}, "ramp": -1}, "a ramp takes a whole number of steps"),
        ({"weights": {"c00": 0.5}, "why": 3}, "'why' must be text"),
        ({"weights": {"c00": 0.5}, "only": 1}, "'only' must be true or false"),
    ],
)
def test_a_change_that_cannot_be_is_refused_with_the_reason(monitor, run, change, message):
    before = (run / REQUEST).read_bytes() if (run / REQUEST).exists() else None
    status, answer = ask(monitor, **change)
    assert status == 400
    assert message in answer["error"]
    assert before == ((run / REQUEST).read_bytes() if (run / REQUEST).exists() else None)


def test_a_body_that_is_no_json_is_refused(monitor):
    status, _, data = send(monitor, "POST", "/weights", b"\xff{")
    assert status == 400
    assert "a change must be a JSON object" in json.loads(data)["error"]


def test_a_body_that_is_nested_without_end_is_refused(monitor, capfd):
    status, _, data = send(monitor, "POST", "/weights", "[" * 100_000)
    assert status == 400
    assert "a change must be a JSON object" in json.loads(data)["error"]
    assert capfd.readouterr().err == ""


def test_a_change_after_weights_that_were_not_seen_is_refused(monitor, run):
    before = (run / REQUEST).read_bytes() if (run / REQUEST).exists() else None
    status, answer = ask(monitor, weights={"c00": 0.5}, after="0" * 32)
    assert status == 400
    assert "the weights have changed since you looked" in answer["error"]
    assert before == ((run / REQUEST).read_bytes() if (run / REQUEST).exists() else None)


def test_connections_are_counted_and_end_in_their_time(monitor, monkeypatch):
    monkeypatch.setattr(monitoring, "_LONGEST", 1.0)
    address = ("127.0.0.1", monitor.server_port)
    silent = [socket.create_connection(address, timeout=30) for _ in range(40)]
    try:
        assert [one.recv(1) for one in silent] == [b""] * 40
    finally:
        for one in silent:
            one.close()
    assert send(monitor, "GET", "/state")[0] == 200


def test_many_may_look_at_once(monitor):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(monitor, "GET", "/state"), range(40)))
    assert {status for status, _, _ in answers} == {200}
    assert {json.loads(data)["unreadable_lines"] for _, _, data in answers} == {0}


def test_a_broken_log_is_an_error_on_the_page_and_no_end_of_the_server(tmp_path):
    path = tmp_path / "weights.jsonl"
    WeightsLog.open(path, write=True).append(Mixture.of({"a": 1, "b": 1}), 0, "")
    with MonitorServer(RunStatus(tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path.write_text(path.read_text().replace("0.5", "0.6", 1))
        status, _, data = send(server, "GET", "/state")
        assert status == 400
        assert "weights.jsonl" in json.loads(data)["error"]
        server.shutdown()


def test_a_job_follows_what_is_asked_and_the_state_shows_it(monitor, run):
    status, answer = ask(monitor, weights={"c00": 0.875}, why="more of c00")
    assert status == 200
    assert answer["weights"] == {"c00": 0.875, "c01": 0.125}

    def followed():
        state = json.loads(send(monitor, "GET", "/state")[2])
        recent = {c["name"]: c["recent"] for c in state["clusters"]}
        return recent["c00"] == pytest.approx(0.875, abs=0.02) and state

    state = wait_for(followed)
    assert {c["name"]: c["target"] for c in state["clusters"]} == {"c00": 0.875, "c01": 0.125}
    assert state["records"][0]["why"] == "more of c00"
    assert state["curves"]["tokens_per_second"][-1][1] > 0
    assert state["silent_seconds"] < 30


def test_a_second_change_keeps_the_weights_of_the_one_that_waits(tmp_path):
    log = WeightsLog.open(tmp_path / LOG, write=True)
    log.append(Mixture.of({"c00": 1, "c01": 1, "c02": 2}), 0, "start")
    with MonitorServer(RunStatus(tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert ask(server, weights={"c00": 0.6})[1]["replaces"] is None
        answer = ask(server, weights={"c01": 0.5})[1]
        server.shutdown()
    assert answer["replaces"]["weights"]["c00"] == pytest.approx(0.6)
    shares = {"c00": 0.3462, "c01": 0.5, "c02": 0.1538}
    assert answer["weights"] == pytest.approx(shares, abs=1e-4)


def test_the_command_prints_the_state_and_the_address_and_ends_at_ctrl_c(climb, run):
    done = climb("monitor", run, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["step"] > 0
    command = [sys.executable, "-m", "climbstream.loader.cli.main", "monitor", str(run)]
    script = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += (
        f"from climbstream.loader.cli.main import main; sys.argv[1:] = {command[3:]!r}; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert errors.endswith("climb monitor ended; the run continues\n")
    assert "Traceback" not in errors


def test_a_port_that_is_taken_and_a_folder_that_is_no_run_are_named(climb, monitor, run, tmp_path):
    done = climb("monitor", run, "--port", monitor.server_port)
    assert done.returncode == 2
    assert f"port {monitor.server_port} of 127.0.0.1 cannot be used" in done.stderr
    done = climb("monitor", tmp_path)
    assert done.returncode == 2
    assert "is not a run" in done.stderr


def test_a_run_that_has_not_begun_is_waited_for(tmp_path):
    out = tmp_path / "later"
    with ClimbProcess(
        "monitor", out, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "waiting for it; Ctrl-C ends" in process.stderr.readline()
        WeightsLog.open(out / LOG, write=True).append(Mixture.of({"c00": 1}), 0, "start")
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.slow
def test_in_a_browser_the_form_changes_the_weights_of_the_job(browser, monitor, run):
    browser.get(monitor.url)

    def cell(name, title):
        titles = [e.text for e in browser.find_elements("css selector", "#heads th")]
        cells = browser.find_elements("css selector", f"#cluster-{name} td")
        return cells[titles.index(title)].text if cells and title in titles else ""

    wait_for(lambda: cell("c01", "served").endswith("%"))
    assert browser.find_element("id", "trouble").text == ""
    assert [cell(name, "loss") for name in ("c00", "c01")] == ["2.000", "3.000"]
    wait_for(lambda: cell("c01", "lately").endswith("%"))
    new = browser.find_element("css selector", "#cluster-c01 input")
    new.send_keys("seven")
    browser.find_element("id", "go").click()
    wait_for(lambda: "is not a number" in browser.find_element("id", "answer").text)
    new.clear()
    new.send_keys("1.5")
    browser.find_element("id", "go").click()
    wait_for(lambda: "sum to 1.5, more than 1" in browser.find_element("id", "answer").text)
    new.clear()
    new.send_keys("0.75")
    browser.find_element("id", "why").send_keys("by hand <b>")
    browser.find_element("id", "go").click()
    wait_for(lambda: cell("c01", "target") == "75.00 %")
    wait_for(lambda: abs(float(cell("c01", "lately").removesuffix(" %")) - 75) < 2)
    assert cell("c00", "target") == "25.00 %"
    records = [r for r in browser.find_element("id", "records").text.splitlines() if "by hand" in r]
    assert len(records) == 1
    assert "→ 75.00 % by hand <b>" in records[0]
    assert cell("c01", "later") == ""  # no ramp: it would be the target
    last = WeightsLog.open(run / "weights.jsonl", write=False).records[-1]
    assert (last.weights, last.why) == ({"c00": 0.25, "c01": 0.75}, "by hand <b>")
    browser.find_element("id", "filter").send_keys("C00")
    shown = browser.find_elements("css selector", "#rows tr")
    assert [row.get_attribute("id") for row in shown] == ["cluster-c00"]
    assert [e for e in browser.get_log("browser") if e["source"] != "network"] == []


def test_a_run_that_has_ended_is_asked_for_nothing(tmp_path):
    WeightsLog.open(tmp_path / LOG, write=True).append(Mixture.of({"c00": 1, "c01": 1}), 0, "start")
    plan = {"train": 1, "shards": "", "settings": {}}
    (tmp_path / "run.json").write_text(json.dumps(plan))
    (tmp_path / "result.json").write_text("{}")
    with MonitorServer(RunStatus(tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, answer = ask(server, weights={"c00": 0.7})
        server.shutdown()
    assert status == 400
    assert "has ended, so its weights cannot change any more" in answer["error"]
    assert not (tmp_path / REQUEST).exists()


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 768, 1000, 1400])
def test_in_a_browser_the_field_for_a_new_weight_is_in_sight_at_every_width(
    browser, monitor, width
):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(monitor.url)
    wait_for(lambda: browser.find_elements("css selector", "#cluster-c01 input"))
    for shift in (0, 500):
        right = browser.execute_script(
            "const field = document.querySelector('#cluster-c01 input');"
            "field.closest('.wide').scrollLeft = arguments[0];"
            "return field.getBoundingClientRect().right;",
            shift,
        )
        assert right < width
    buttons = browser.find_elements("css selector", "nav button")
    assert all(b.rect["x"] + b.rect["width"] <= width for b in buttons if b.is_displayed())


@pytest.mark.slow
def test_in_a_browser_a_phone_shows_shares_and_a_silent_run_that_requests_wait(browser, tmp_path):
    weights = {f"c{n:02}": 1 / 8 for n in range(8)}
    WeightsLog.open(tmp_path / LOG, write=True).append(Mixture.of(weights), 0, "start")
    for step, name in ((100, "c00"), (200, "c01")):
        more = {"target": weights, "epochs": weights, "cluster_loss": {name: 2.0}}
        line = {"step": step, "tokens": 512 * step, "served": weights}
        append_line(tmp_path / "metrics.jsonl", line | more)
    os.utime(tmp_path / "metrics.jsonl", (0, time.time() - 1200))
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    with MonitorServer(RunStatus(tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get(server.url)
        wait_for(lambda: browser.find_elements("css selector", "#cluster-c01 input"))
        for field in ("served", "target", "recent"):
            head = browser.find_element("css selector", f"#heads th[data-field={field}]")
            assert head.rect["x"] + head.rect["width"] < 390
        assert "the request waits in the folder" in browser.find_element("id", "waits").text
        losses = [browser.find_element("id", f"cluster-{n}").text for n in ("c00", "c01")]
        assert ["2.000 at step 100" in text for text in losses] == [True, False]
        assert "and 4 more" in browser.find_element("id", "records").text
        server.shutdown()


@pytest.mark.slow
def test_in_a_browser_a_wrong_token_shows_what_to_do(browser, monitor):
    browser.get(monitor.url[:-3])
    trouble = wait_for(lambda: browser.find_element("id", "trouble").text)
    assert "open the address that climb monitor printed" in trouble


@pytest.mark.slow
def test_in_a_browser_clusters_have_words_caps_and_the_run_an_end(browser, tmp_path):
    """The files that a run of climb train leaves, with a cluster whose name would be markup."""
    evil = "<b>c00</b>"
    folder, shards = tmp_path / "run", tmp_path / "shards"
    folder.mkdir()
    shards.mkdir()
    about = {"documents": 1, "tokens": 1, "bytes": 1, "quality": {}, "labels": {}}
    info = ClusterInfo(name=evil, terms=("<i>sail", "reef"), samples=(), micro=(), **about)
    save_clusters(shards, [info])
    WeightsLog.open(folder / LOG, write=True).append(Mixture.of({evil: 1}), 0, "start")
    plan = {"settings": {"tokens": 100_000, "seq_len": 64, "batch_rows": 8}}
    (folder / "run.json").write_text(json.dumps(plan))
    opening = {"kind": "opening", "shards": str(shards), "max_epochs": {evil: 4.0}}
    (folder / "served.jsonl").write_text(json.dumps(opening) + "\n")
    for step in (100, 120):
        more = {"time": step / 10, "loss": 3.0, "cluster_loss": {evil: 3.0 - step / 1e3}}
        line = {"step": step, "tokens": 512 * step, "served": {evil: 1.0}, "epochs": {evil: 1.25}}
        line |= {"used_up_at": {evil: 3000}, "heldout_loss": {evil: 3.25}, "target": {evil: 1.0}}
        append_line(folder / "metrics.jsonl", line | more)
    size = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    with MonitorServer(RunStatus(folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get(server.url)
        text = wait_for(lambda: (t := browser.find_element("id", "rows").text) and t)
        for part in (evil, "<i>sail, reef", "1.250 of 4", "3,000", "3.250"):
            assert part in text
        assert "its words" in browser.find_element("id", "filter").get_attribute("placeholder")
        beyond = "const t = document.querySelector('.wide'); return t.scrollWidth - t.clientWidth"
        assert browser.execute_script(beyond) == 0
        facts = browser.find_element("id", "facts").text
        assert "38,400\ntokens left" in facts
        assert "0 min\ntime left" in facts
        figure = browser.find_element("css selector", "#grid figure")
        assert f"{evil} <i>sail" in figure.text
        assert browser.find_elements("css selector", "#rows b b, #rows i i") == []
        browser.find_element("css selector", "nav button").click()
        assert browser.execute_script("return location.hash") == f"#{server.token}"
        words = browser.find_element("css selector", "#heads th[data-field=words] button")
        words.send_keys("\n")
        head = browser.find_element("css selector", "#heads th[data-field=words]")
        assert head.get_attribute("aria-sort") == "ascending"
        assert browser.find_element("id", "go").is_enabled()
        (folder / "run.json").write_text(json.dumps({"train": 1, "shards": "", **plan}))
        (folder / "result.json").write_text("{}")
        wait_for(lambda: "the run has ended" in browser.find_element("id", "trouble").text)
        assert not browser.find_element("id", "go").is_enabled()
        assert [e for e in browser.get_log("browser") if e["source"] != "network"] == []
        server.shutdown()
