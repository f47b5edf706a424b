"""postern intercept: what its rules do to real connections, and how it tells whether they stand.

None of the data plane is needed: see tests/lib/interception.py. What other modes do, and what is refused,
is in test_intercept_modes.py."""

import json
import socket

import pytest
from interception import IN, OUT, PROXY_UID, REFUSED, World, by_peer, cgroup2_mount, connected, redirected, tcp_segment, works
from lab import in_netns


@pytest.fixture
def world(lab, build):
    return World(lab, build)


def test_both_directions_and_families(world):
    world.proxy()
    p = world.apply()
    assert "UDP is not redirected" in p.stderr
    for mine, theirs in ((world.app4, world.peer4), (world.app6, world.peer6)):
        # Out: any port, whether or not somebody listens there.
        assert world.ask(world.app, theirs, 80) == redirected(OUT, theirs, 80)
        assert world.ask(world.app, theirs, 9) == redirected(OUT, theirs, 9)
        # In: what arrives, with the address and port that it asked for.
        assert world.ask(world.peer, mine, 80) == redirected(IN, mine, 80)
        assert world.ask(world.peer, mine, 9) == redirected(IN, mine, 9)
        # Own addresses are no way out of the machine: the proxy dials the workload like this.
        assert world.ask(world.app, mine, 80) == by_peer(80)
    assert world.ask(world.app, "127.0.0.1", 80) == by_peer(80)
    assert world.ask(world.app, "::1", 80) == by_peer(80)


def test_own_traffic_is_known_by_uid(world):
    world.proxy()
    world.apply()
    for theirs in (world.peer4, world.peer6):
        assert world.ask(world.app, theirs, 80, uid=PROXY_UID) == by_peer(80)
        assert world.ask(world.app, theirs, 80, uid=PROXY_UID + 1) == redirected(OUT, theirs, 80)


def test_listeners_answer_redirected_connections_only(world):
    world.proxy()
    world.apply()
    for mine in (world.app4, world.app6):
        assert world.ask(world.peer, mine, IN) == REFUSED
        assert world.ask(world.peer, mine, OUT) == REFUSED
        assert world.ask(world.app, mine, IN) == REFUSED
    assert world.ask(world.app, "127.0.0.1", OUT) == REFUSED
    assert world.ask(world.app, "::1", OUT) == REFUSED
    # Those ports of another machine are destinations like any other.
    assert world.ask(world.app, world.peer4, IN) == redirected(OUT, world.peer4, IN)


def test_without_a_listener_it_fails_closed(world):
    world.apply()
    assert world.ask(world.app, world.peer4, 80) == REFUSED
    assert world.ask(world.peer, world.app6, 80) == REFUSED


def test_udp_passes(world):
    world.apply()
    for ns, host in ((world.app, world.peer4), (world.app, world.peer6), (world.peer, world.app6)):
        with in_netns(ns):
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        with s:
            s.settimeout(30)
            s.sendto(b"?", (host, 5353))
            assert s.recv(100) == b"udp:?"


def test_exclusions(world):
    world.proxy()
    options = ("--exclude-outbound-ports", "81,8000-8100", "--exclude-inbound-ports", "81,22,81")
    world.apply(*options)
    for mine, theirs in ((world.app4, world.peer4), (world.app6, world.peer6)):
        assert world.ask(world.app, theirs, 80) == redirected(OUT, theirs, 80)
        assert world.ask(world.app, theirs, 81) == by_peer(81)
        assert world.ask(world.app, theirs, 8100) == by_peer(8100)
        assert world.ask(world.peer, mine, 80) == redirected(IN, mine, 80)
        assert world.ask(world.peer, mine, 81) == by_peer(81)
    world.check(*options)
    blocks = ("--exclude-outbound-cidrs", f"{world.peer4},10.1.0.0/16,fd77:77::/64,{world.peer6}")
    world.apply(*blocks)
    assert world.ask(world.app, world.peer4, 80) == by_peer(80)
    assert world.ask(world.app, world.peer6, 80) == by_peer(80)
    world.check(*blocks)
    world.apply("--exclude-outbound-cidrs", "10.1.0.0/16")
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80)


def test_one_direction_and_one_family(world):
    world.proxy()
    world.apply("--no-inbound")
    assert world.ask(world.peer, world.app4, 80) == by_peer(80)
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80)
    world.intercept("--no-outbound")
    assert world.ask(world.peer, world.app4, 80) == redirected(IN, world.app4, 80)
    assert world.ask(world.app, world.peer4, 80) == by_peer(80)
    assert world.ask(world.app, world.app4, 80) == by_peer(80)
    p = world.apply("--ipv4-only")
    assert "IPv6 is not redirected" in p.stderr
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80)
    assert world.ask(world.app, world.peer6, 80) == by_peer(80)
    assert world.ask(world.peer, world.app6, 80) == by_peer(80)


def test_other_ports(world):
    world.intercept("--proxy-uid", "1", "--outbound-port", "80", "--inbound-port", "81")
    assert world.ask(world.app, world.peer4, 9) == redirected(80, world.peer4, 9)
    assert world.ask(world.peer, world.app4, 9) == redirected(81, world.app4, 9)


def test_applied_again_changes_nothing(world):
    world.proxy()
    world.apply()
    before = world.nft("list ruleset")
    assert "redirect to :15001" in before
    world.apply()
    assert world.nft("list ruleset") == before
    world.check()
    assert world.nft("list ruleset") == before, "--check left something behind"


def test_check_says_what_differs(world):
    p = world.check(want=1)
    assert "nothing is redirected" in p.stderr
    world.apply()
    p = world.check()
    assert "those asked for" in p.stdout
    p = world.intercept("--check", "--proxy-uid", "1", want=1)
    assert "missing:    meta skuid 1 accept" in p.stderr
    assert f"unexpected: meta skuid {PROXY_UID} accept" in p.stderr

    # A rule deleted, one added, a chain emptied: each is seen, and applying heals it.
    for harm, says in (
        ("flush chain inet postern outbound", "missing:    goto outbound_rest"),
        ("flush chain inet postern outbound_rest", "missing:    meta l4proto tcp redirect to :15001"),
        ("flush chain inet postern guard", "missing:    tcp dport 15001"),
        ("insert rule inet postern outbound ip daddr 10.0.0.0/8 accept", "unexpected: ip daddr 10.0.0.0/8 accept"),
        ("add chain inet postern more", "unexpected: chain more"),
    ):
        world.nft(harm)
        p = world.check(want=1)
        # Without /etc/protocols (a minimal root) the library lists a protocol by its number.
        assert says in p.stderr.replace("l4proto 6 ", "l4proto tcp "), (harm, p.stderr)
        world.apply()
        world.check()


def test_remove(world):
    p = world.intercept("--remove")
    assert "nothing to remove" in p.stderr
    world.nft("add table inet other")
    world.apply()
    assert world.ask(world.app, world.peer4, 80) == REFUSED
    p = world.intercept("--remove")
    assert "removed" in p.stderr
    assert world.ask(world.app, world.peer4, 80) == by_peer(80)
    assert world.ask(world.peer, world.app4, 80) == by_peer(80)
    assert world.nft("list tables").split() == ["table", "inet", "other"], "only the own table goes"
    world.check(want=1)


def test_print_applies_nothing(world):
    p = world.intercept("--print", "--proxy-uid", "7", uid=PROXY_UID)  # and needs no privilege
    assert p.stdout.startswith("add table inet postern\ndelete table inet postern\n")
    assert "meta skuid 7 accept" in p.stdout
    assert world.nft("list ruleset") == ""
    world.nft(p.stdout)  # what is printed is what would be loaded
    world.intercept("--check", "--proxy-uid", "7")


def test_connections_survive_another_apply(world):
    world.apply("--exclude-outbound-ports", "7000")
    by_rule = connected(world.app, world.app, "127.0.0.1", OUT, dial=(world.peer4, 9))
    excluded = connected(world.peer, world.app, world.peer4, 7000)
    world.apply()
    assert works(*by_rule) and works(*excluded)
    world.intercept("--remove")
    assert works(*excluded)  # what was translated ends with the last rule that translates


def test_what_came_in_before_is_cut(world):
    """Whether or not the kernel tracked it already: nobody knows who that is."""
    before = connected(world.app, world.peer, world.app4, 7000)
    assert works(*before)
    world.apply()
    assert not works(*before)
    world.intercept("--remove")
    world.nft("table inet other { chain c { type filter hook input priority 5; ct state invalid counter; }; }")
    tracked = connected(world.app, world.peer, world.app4, 7001)
    assert works(*tracked)
    world.apply()
    assert not works(*tracked)


@pytest.mark.parametrize("rules_first", [True, False])
def test_a_stray_segment_opens_no_way_past(world, rules_first):
    """The kernel tracks a connection from any ACK on. One that the workload's host does not answer (it
    carries an MD5 signature that nobody expects) leaves that entry standing, and a SYN on the same four
    numbers is then taken for a repetition: never asked about translation again."""
    world.proxy()
    track = "table inet other { chain c { type filter hook input priority 5; ct state invalid counter; }; }"
    world.nft(track)
    if rules_first:
        world.apply()
    with in_netns(world.peer):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        probe = socket.socket()
        probe.bind((world.peer4, 0))
    with raw, probe:
        sport = probe.getsockname()[1]
        md5 = b"\x13\x12" + bytes(16) + b"\x01\x01"
        raw.sendto(tcp_segment(world.peer4, world.app4, sport, 80, 0x10, md5), (world.app4, 0))
        if not rules_first:
            world.apply()
        probe.settimeout(3)
        try:
            probe.connect((world.app4, 80))
            answer = json.loads(probe.makefile().read() or "{}")
        except OSError:
            answer = None
        assert answer in (None, {}, redirected(IN, world.app4, 80)), answer


def test_without_the_capability(world):
    p = world.intercept("--proxy-uid", "1", uid=PROXY_UID, want=1)
    assert "CAP_NET_ADMIN" in p.stderr
    assert world.nft("list ruleset") == ""


@pytest.mark.parametrize(
    "options",
    [(), ("--proxy-uid", "root"), ("--proxy-uid", "1", "--exclude-outbound-cidrs", "10.0.0.1/8"), ("--what",)],
)
def test_wrong_command_lines(world, options):
    p = world.intercept(*options, want=2)
    assert p.stderr.startswith("postern intercept: ")


# --- by cgroup ---
def test_own_traffic_is_known_by_cgroup(world, cgroup):
    world.proxy()
    world.intercept("--proxy-cgroup", str(cgroup))
    assert [p.name for p in cgroup.iterdir() if p.is_dir()] == [], "the proof cleans up"
    for theirs in (world.peer4, world.peer6):
        assert world.ask_inside(cgroup, theirs, 80) == by_peer(80)
        assert world.ask_inside(cgroup.parent, theirs, 80) == redirected(OUT, theirs, 80)
        assert world.ask(world.app, theirs, 80) == redirected(OUT, theirs, 80)
    world.intercept("--check", "--proxy-cgroup", str(cgroup))
    # As /proc/PID/cgroup writes it; and the outer one holds the inner one.
    short = "/" + str(cgroup.parent.relative_to(cgroup2_mount()))
    world.intercept("--proxy-cgroup", short)
    assert world.ask_inside(cgroup, world.peer4, 80) == by_peer(80)
    assert "postern_probe" not in world.nft("list tables")


def test_a_cgroup_made_anew_is_noticed(world, cgroup):
    """Rules hold the cgroup and not its name: after a restart of the service they match nothing."""
    world.intercept("--proxy-cgroup", str(cgroup))
    cgroup.rmdir()
    cgroup.mkdir()
    p = world.intercept("--check", "--proxy-cgroup", str(cgroup), want=1)
    assert "missing:    socket cgroupv2" in p.stderr


def test_cgroups_that_cannot_be_meant(world, cgroup):
    p = world.intercept("--proxy-cgroup", str(cgroup / "absent"), want=1)
    assert "no cgroup" in p.stderr
    p = world.intercept("--proxy-cgroup", "/", want=2)
    assert "every process" in p.stderr
    assert world.nft("list ruleset") == ""
