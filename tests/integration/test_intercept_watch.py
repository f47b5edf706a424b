"""postern intercept --watch: rules that others change are put into force again, in one transaction."""

import pathlib
import signal

import pytest
from interception import OUT, PROXY_UID, World, by_peer, redirected
from lab import log_events, run, wait_for


@pytest.fixture
def world(lab, build):
    return World(lab, build)


def watch(world, *options, whose=("--proxy-uid", str(PROXY_UID))):
    tool = [world.tool, "--watch", *whose, *options]
    p = world.lab.start("watch", tool, netns=world.app)

    def there():
        assert p.alive(), p.err()
        return log_events(p.err(), "watching")

    wait_for("the watcher", there)
    return p


def restored(p, n):
    assert p.alive(), p.err()
    return len(log_events(p.err(), "rules_restored")) >= n


def test_whatever_is_done_to_them(world):
    world.proxy()
    p = watch(world)
    world.check()
    for n, (harm, what) in enumerate(
        (
            ("flush ruleset", "missing:"),
            ("delete table inet postern", "missing:"),
            ("flush chain inet postern guard", "missing:    tcp dport 15001"),
            ("insert rule inet postern outbound ip daddr 10.0.0.0/8 accept", "unexpected: ip daddr 10.0.0.0/8 accept"),
            ("add chain inet postern more", "unexpected: chain more"),
        ),
        1,
    ):
        world.nft(harm)
        wait_for(f"the rules after '{harm}'", lambda n=n: restored(p, n))
        world.check()
        assert what in log_events(p.err(), "rules_drifted")[-1]["differences"], harm
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80)
    # What others do beside it is their own affair.
    world.nft("add table inet other")
    world.nft("flush chain inet postern guard")
    wait_for("the rules", lambda: restored(p, 6))
    assert len(log_events(p.err(), "rules_drifted")) == 6
    assert "other" in world.nft("list tables")
    assert p.stop() == 0
    assert log_events(p.err(), "stopped")
    world.check()


def test_at_no_moment_without_rules(world):
    """While it mends a changed rule over and over, an application that asks all the time is always captured."""
    world.proxy()
    p = watch(world)
    for n in range(4):
        world.nft("flush chain inet postern guard")
        answers = []
        wait_for("the rules", lambda n=n, a=answers: a.append(world.ask(world.app, world.peer4, 80)) or restored(p, n + 1))
        assert all(a == redirected(OUT, world.peer4, 80) for a in answers), answers


def test_it_keeps_one_capability_and_a_short_list_of_calls(world):
    p = watch(world)
    status = dict(
        line.split(":", 1) for line in pathlib.Path(f"/proc/{p.pid}/status").read_text().splitlines() if ":" in line
    )
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == 1 << 12, (name, status[name])
    for name in ("CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, (name, status[name])
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"


def test_the_way_of_answers(world):
    options = ("--inbound-mode", "tproxy")
    p = watch(world, *options)
    n = 0
    for v in ("-4", "-6"):
        for harm in (("rule", "del", "pref", "15006"), ("route", "flush", "table", "15006")):
            n += 1
            run("ip", "-n", world.app, v, *harm)
            wait_for("the routes", lambda: restored(p, n))
            world.check(*options)


def test_somebody_who_undoes_it(world):
    """It goes on, and not as fast as it can."""
    p = watch(world)

    def contested():
        assert p.alive(), p.err()
        world.nft("flush chain inet postern guard")
        return log_events(p.err(), "rules_contested")

    wait_for("the fight to be noticed", contested, interval=0.01)
    wait_for("the rules in the end", lambda: world.intercept_rc("--check", "--proxy-uid", str(PROXY_UID)) == 0)
    assert p.alive()


def test_without_the_capability(world):
    p = world.intercept("--watch", "--proxy-uid", "1", uid=PROXY_UID, want=1)
    assert "CAP_NET_ADMIN" in p.stderr


def test_a_signal_ends_it(world):
    p = watch(world)
    p.send_signal(signal.SIGINT)
    assert p.p.wait(10) == 0
    world.check()


def test_a_cgroup_made_anew(world, cgroup):
    world.proxy()
    p = watch(world, "--watch-interval", "1", whose=("--proxy-cgroup", str(cgroup)))
    assert world.ask_inside(cgroup, world.peer4, 80) == by_peer(80)
    cgroup.rmdir()
    wait_for("the loss to be noticed", lambda: log_events(p.err(), "cgroup_lost"))
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80), "meanwhile all is captured"
    cgroup.mkdir()
    wait_for("the rules of the new one", lambda: restored(p, 1))
    assert world.ask_inside(cgroup, world.peer4, 80) == by_peer(80)


def test_a_slice_outlives_its_services(world, cgroup):
    """A rule for the slice above: services below come and go, and their cgroups are made anew."""
    world.proxy()
    outer = cgroup.parent
    world.intercept("--proxy-cgroup", str(outer))
    for _ in range(2):
        assert world.ask_inside(cgroup, world.peer4, 80) == by_peer(80)
        assert world.ask_inside(cgroup, world.peer6, 80) == by_peer(80)
        cgroup.rmdir()
        cgroup.mkdir()
    world.intercept("--check", "--proxy-cgroup", str(outer))
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80)
