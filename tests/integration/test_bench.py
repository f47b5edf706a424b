"""bench/: the pair that is a handle for outside tools, and the arithmetic of the comparison."""

import argparse
import importlib.util
import math
import os
import pathlib
import sys
from importlib.machinery import SourceFileLoader

import pytest
import soak_growth
import soak_losses
from lab import run, wait_for
from servers import TcpServer, http_one

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAIR = ROOT / "bench" / "pair"


class Handle:
    """bench/pair in a namespace of the lab's; taken down whatever happens."""

    def __init__(self, lab, build, netns):
        self.lab, self.netns, self.name = lab, netns, lab.prefix
        self.env = {**os.environ, "POSTERN_BUILD": str(build)}
        self.state = pathlib.Path(f"/run/postern-pair-{self.name}")

    def call(self, verb, *args):
        argv = ["/usr/bin/python3", PAIR, verb, "--name", self.name, *args]
        return run(*self.lab.argv_in(argv, self.netns), check=False, timeout=90, env=self.env)

    def up(self, to, *args):
        return self.call("up", "--listen", "127.0.0.1:7101", "--tls", "127.0.0.1:7102", "--to", f"127.0.0.1:{to}", *args)


@pytest.fixture
def handle(lab, build):
    one = Handle(lab, build, lab.netns("bench"))
    yield one
    if one.state.exists():
        one.call("down")


def fetch(handle, path):
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", f"http://127.0.0.1:7101{path}"]
    return run(*handle.lab.argv_in(argv, handle.netns), check=False).stdout


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_pair_up_and_down(handle, mode):
    pids = handle.lab.dir / "pids"
    server = TcpServer(handle.netns, http_one)
    try:
        r = handle.up(server.port, "--mode", mode, "--workers", "1", "--pids", pids)
        assert r.returncode == 0, r.stderr
        lines = [line.split() for line in pids.read_text().splitlines()]
        assert {side for side, _ in lines} == {"client", "server"}
        for _, pid in lines:
            assert pathlib.Path(f"/proc/{pid}").exists()
        assert fetch(handle, "/") == "200"
        assert handle.up(server.port).returncode != 0, "the same name twice"
        assert fetch(handle, "/") == "200", "the refused second one took the first one down"
    finally:
        server.close()
    assert handle.call("down").returncode == 0
    assert not handle.state.exists()
    for _, pid in lines:
        wait_for(f"the end of {pid}", lambda pid=pid: not pathlib.Path(f"/proc/{pid}").exists())


def test_pair_takes_a_policy(handle):
    policy = handle.lab.dir / "policy.yaml"
    policy.write_text(
        "kind: Policy\nlevel: 1\nrules:\n  - name: r\n    action: ALLOW\n    to:\n      - paths: [/allowed]\n"
    )
    server = TcpServer(handle.netns, http_one)
    try:
        r = handle.up(server.port, "--mode", "http", "--workers", "1", "--policy", policy)
        assert r.returncode == 0, r.stderr
        assert fetch(handle, "/allowed") != "403"
        assert fetch(handle, "/other") == "403"
    finally:
        server.close()


def test_pair_with_all_that_costs(handle):
    """Resumption, keys in processes of their own, and new processes in the old ones' place: it goes on."""
    server = TcpServer(handle.netns, http_one)
    try:
        r = handle.up(server.port, "--resume", "--key-holder", "--workers", "1", "--drain", "1s")
        assert r.returncode == 0, r.stderr
        assert fetch(handle, "/") == "200"
        assert handle.call("upgrade").returncode == 0
        names = [line.split()[0] for line in (handle.state / "pids").read_text().splitlines()]
        assert names == ["agent", "client", "server", "client-2", "server-2"]
        assert fetch(handle, "/") == "200"
    finally:
        server.close()
    assert handle.call("down").returncode == 0
    assert not handle.state.exists()


def test_pair_over_hbone(handle):
    """HTTP judged in a stream of the pair's session; the client's log says which way it went."""
    server = TcpServer(handle.netns, http_one)
    try:
        r = handle.up(server.port, "--mode", "http", "--transport", "hbone", "--workers", "1", "--log", "all")
        assert r.returncode == 0, r.stderr
        assert fetch(handle, "/") == "200"
        wait_for("the connection's line", lambda: '"transport":"hbone"' in (handle.state / "client.log").read_text())
    finally:
        server.close()


@pytest.fixture(scope="module")
def compare():
    sys.path.insert(0, str(ROOT / "bench"))
    loader = SourceFileLoader("bench_compare", str(ROOT / "bench" / "compare"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_compare", loader))
    loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "bench"))


def test_best_of_rates_and_median_of_costs(compare):
    rounds = [
        {"kept": {"per_s": 10.0, "cpu_us": 5.0, "errors": 0}, "upgrade": {"lost": 0}},
        {"kept": {"per_s": 30.0, "cpu_us": 9.0, "errors": 2}},
        {"kept": {"per_s": 20.0, "cpu_us": 6.0, "errors": 0}},
    ]
    assert compare.rows.summed_up(rounds) == {"kept": {"per_s": 30.0, "cpu_us": 6.0, "errors": 2}, "upgrade": {"lost": 0}}


def test_ratio_is_to_the_best_of_the_same_layer(compare):
    results = {
        "postern tcp": {"kept": {"per_s": 80.0, "cpu_us": 26.0}},
        "haproxy tcp": {"kept": {"per_s": 100.0, "cpu_us": 40.0}},
        "nginx stream": {"kept": {"per_s": 50.0, "cpu_us": 20.0}},
        "haproxy http": {"kept": {"per_s": 1000.0, "cpu_us": 1.0}},
    }
    got = {r["key"]: r for r in compare.rows.ratios(results, compare.CLASSES)}
    assert (got["per_s"]["best"], got["per_s"]["ratio"]) == ("haproxy tcp", 0.8)
    assert (got["cpu_us"]["best"], got["cpu_us"]["ratio"]) == ("nginx stream", 1.3)


BARE = {"handshake_us": 1000.0, "bare_held_kb": 48.0}


def demanded(compare, results):
    return {(d["pair"], d["key"]): (d["must"], d["held"]) for d in compare.rows.demands(results, BARE, compare.CLASSES)}


def test_what_the_design_demands(compare):
    results = {
        "postern tcp": {
            "bulk_1": {"mb_per_s": 80.0, "cpu_s_per_gb": 1.26},
            "fresh": {"cpu_us": 1100.0},
            "kept": {"cpu_us": 17.1},
            "memory": {"held_8000_kb": 54.1, "idle_mb": 3.0},
        },
        "postern hbone": {"fresh": {"cpu_us": 50.0}, "memory": {"held_15000_kb": 7.0}},
        "postern http": {"kept": {"cpu_us": 24.1}, "upgrade": {"lost": 1}},
        "haproxy tcp": {"bulk_1": {"mb_per_s": 100.0, "cpu_s_per_gb": 2.0}, "kept": {"cpu_us": 20.0}},
        "envoy tcp": {"bulk_1": {"mb_per_s": 90.0, "cpu_s_per_gb": 1.0}, "kept": {"cpu_us": 30.0}},
        "haproxy http": {"kept": {"cpu_us": 30.0}},
        "envoy http": {"kept": {"cpu_us": 90.0}},
    }
    got = demanded(compare, results)
    assert got["postern tcp", "mb_per_s"] == (80.0, True)
    assert got["postern tcp", "cpu_s_per_gb"] == (1.25, False)
    assert got["postern tcp", "cpu_us"] == (17.0, False)  # of kept requests, which come last
    assert got["postern tcp", "held_8000_kb"] == (54.0, False)
    assert got["postern http", "cpu_us"] == (30.0, True)  # a third of Envoy's, which comes last
    assert got["postern http", "lost"] == (0, False)
    # Without a ztunnel nobody can say.
    assert got["postern hbone", "cpu_us"] == got["postern hbone", "held_15000_kb"] == got["postern tcp", "idle_mb"] == (None, None)
    results["ztunnel"] = {"fresh": {"cpu_us": 100.0}, "memory": {"held_15000_kb": 10.0, "idle_mb": 3.0}}
    got = demanded(compare, results)
    assert got["postern hbone", "cpu_us"] == (50.0, True) and got["postern hbone", "held_15000_kb"] == (7.0, True)
    assert got["postern tcp", "idle_mb"] == (3.0, True)
    del results["envoy http"], results["ztunnel"]
    kept = [d for d in compare.rows.demands(results, BARE, compare.CLASSES) if (d["pair"], d["row"]) == ("postern http", "kept")]
    assert [(d["must"], d["held"]) for d in kept] == [(24.0, False), (None, None)]


def test_pools_are_no_measure_for_connections(compare):
    results = {
        "postern http": {"fresh": {"cpu_us": 1000.0}, "kept": {"cpu_us": 30.0}, "memory": {"held_1000_kb": 50.0}},
        "haproxy http": {"fresh": {"cpu_us": 50.0}, "kept": {"cpu_us": 40.0}, "memory": {"held_1000_kb": 1.0}},
        "nginx stream": {"fresh": {"cpu_us": 2000.0}, "kept": {"cpu_us": 20.0}, "memory": {"held_1000_kb": 100.0}},
    }
    got = {(r["row"], r["best"]): r["ratio"] for r in compare.rows.ratios(results, compare.CLASSES)}
    assert got == {("fresh", "nginx stream"): 0.5, ("kept", "haproxy http"): 0.75, ("memory", "nginx stream"): 0.5}


def test_an_option_is_measured_beside_the_same_pair_without(compare):
    results = {
        "postern http": {"kept": {"cpu_us": 20.0}},
        "postern http logging": {"kept": {"cpu_us": 30.0}},
        "postern tcp resuming": {"fresh": {"cpu_us": 500.0}},  # the one without it failed
    }
    got = [(c["pair"], c["ratio"]) for c in compare.rows.costs(results, compare.CLASSES)]
    assert got == [("postern http logging", 1.5)]


def test_who_fails_is_left_out_and_said(compare, monkeypatch):
    class Good:
        name = "haproxy tcp"

    class Bad:
        name = "stunnel"

    class Own:
        name = "postern tcp"

    tries = []

    def measure(cls, *_):
        tries.append(cls.name)
        if cls is Bad or (cls is Own and tries.count("postern tcp") == 2):
            raise compare.peers.Failed(f"{cls.name}: ended with 1\nand why")
        return {"kept": {"per_s": 1.0, "errors": 0}}

    monkeypatch.setattr(compare, "measure_pair", measure)
    left_out, not_done, bare = {}, [], []
    a = argparse.Namespace(rounds=3, latencies=0)
    rounds = compare.rounds_of(a, [Good, Bad, Own], {"end": math.inf}, left_out, not_done, lambda: bare.append(len(tries)))
    assert {n: len(r) for n, r in rounds.items()} == {"haproxy tcp": 3, "postern tcp": 1} and tries.count("stunnel") == 1
    assert bare == [0, 3, 5] and not_done == [], "no proxy at all is measured before each round"
    assert left_out == {
        "stunnel": "it failed in round 1: stunnel: ended with 1",
        "postern tcp": "it failed in round 2: postern tcp: ended with 1",
    }


def test_nothing_begins_after_the_time(compare, monkeypatch):
    class Good:
        name = "haproxy tcp"

    class Late:
        name = "stunnel"

    context = {"end": math.inf}

    def measure(cls, *_):
        if context["round"] == 2:
            context["end"] = 0
        return {"kept": {"per_s": 1.0}}

    monkeypatch.setattr(compare, "measure_pair", measure)
    not_done = []
    rounds = compare.rounds_of(argparse.Namespace(rounds=3, latencies=0), [Good, Late], context, {}, not_done, lambda: None)
    assert {n: len(r) for n, r in rounds.items()} == {"haproxy tcp": 2, "stunnel": 1}
    assert not_done == ["stunnel in round 2, and what comes behind it: the time was over"]


def test_each_round_begins_with_another(compare, monkeypatch):
    """And the rounds of latencies alone are for those that have the row."""

    class First:
        name, layer, rows = "haproxy tcp", 4, None

    class Second:
        name, layer, rows = "postern tcp", 4, None

    class Rateless:
        name, layer, rows = "postern http audit chain", 7, ("kept",)

    class Apart:
        name, layer, rows = "postern tcp resuming", -1, None

    tries = []

    def measure(cls, a, context, first):
        tries.append((context["round"], cls.name.rpartition(" ")[2], a.rows, first))
        return {"rate": {"p99_ms": 1.0}}

    monkeypatch.setattr(compare, "measure_pair", measure)
    whole = ["kept", "rate"]
    a = argparse.Namespace(rounds=2, latencies=2, rows=whole)
    compare.rounds_of(a, [First, Second, Rateless, Apart], {"end": math.inf}, {}, [], lambda: None)
    assert [t[1] for t in tries if t[0] == 1] == ["tcp", "tcp", "chain", "resuming"]
    assert [t[1] for t in tries if t[0] == 2] == ["tcp", "chain", "resuming", "tcp"]
    assert [(t[0], t[1]) for t in tries if t[2] != whole] == [(3, "tcp"), (3, "tcp"), (4, "tcp"), (4, "tcp")]
    assert {t[3] for t in tries if t[0] == 1} == {True} and {t[3] for t in tries if t[0] > 1} == {False}


def test_a_million_is_projected_from_the_most_that_were_measured(compare):
    got = compare.report.projection({
        "postern tcp": {"memory": {"idle_mb": 3.0, "held_1000_kb": 60.0, "held_8000_kb": 52.4288}},
        "haproxy tcp": {"memory": {"held_8000_kb": 60.0}},
    })  # fmt: skip
    assert got[-1] == "| postern tcp | 8,000 | 52.4 | 50.0 |" and len(got) == 6
    assert compare.report.projection({"no proxy": {}}) == []


# --- the soak's arithmetic -------------------------------------------------------------------------------
def line(at_ms, port, reason, **more):
    return {"at_ms": at_ms, "source": f"127.0.0.1:{port}", "reason": reason, **more}


def lost(at_ms, port):
    return {"at_ms": at_ms, "port": port, "what": "reset", "lane": "tcp"}


def test_what_a_connection_was_lost_for():
    near = [
        line(1000, 1, "certificate_expired", expired="own"),
        line(2000, 2, "upstream_reset"),
        line(2001, 3, "upstream_reset"),
        line(9000, 1, "upstream_reset"),  # the same port, another connection
        line(12000, 5, "drained"),
    ]
    far = [line(1990, 77, "certificate_expired", expired="peer")]  # explains one of two
    losses = [lost(1001, 1), lost(2000, 2), lost(2002, 3), lost(9000, 1), lost(9001, 4), lost(12000, 5)]
    counts, undemanded = soak_losses.classify(losses, near, far)
    assert counts["tcp", "certificate_expired (own)", True] == 1
    assert counts["tcp", "certificate_expired (peer)", True] == 1
    assert counts["tcp", "drained", True] == 1
    assert counts["tcp", "upstream_reset", False] == 2
    assert counts["tcp", "reset, and no line about it", False] == 1
    assert [u["port"] for u in undemanded] == [3, 1, 4]


def test_a_session_takes_its_streams_along():
    near = [line(1000 + i, i, "session_lost") for i in range(3)]
    far = [line(1000, 50, "certificate_expired", transport="hbone_session", expired="own")]
    counts, undemanded = soak_losses.classify([lost(1000, i) for i in range(3)], near, far)
    assert counts == {("tcp", "certificate_expired (own)", True): 3} and not undemanded
    # One that ended for no reason that anybody stated takes them along as well, and is no excuse.
    far[0]["reason"] = "session_silent"
    assert len(soak_losses.classify([lost(1000, i) for i in range(3)], near, far)[1]) == 3


def test_growth_is_a_slope_and_no_difference_of_two_samples():
    flat = [(10 * i, 5000 + (200 if i % 2 else 0)) for i in range(60)]
    assert soak_growth.judge(flat, 0.03, 256)["ok"]
    growing = [(10 * i, 5000 + 12 * i + (200 if i % 2 else 0)) for i in range(60)]
    found = soak_growth.judge(growing, 0.03, 256)
    assert not found["ok"] and 700 < found["growth"] < 720 + 20
    assert not soak_growth.judge(growing[:5], 0.03, 256)["ok"], "too few samples are no verdict"
