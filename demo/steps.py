"""steps: what the demo shows, each from what was seen."""

import json
import signal
import socket
import time

from capture import Capture
from lab import LabError, in_netns, wait_for
from mesh import HTTP_PORT, TICKER_PORT, TRUST_DOMAIN, UNLISTED_PORT, WORKLOADS
from traffic import Load


def spiffe_id(w):
    return f"spiffe://{TRUST_DOMAIN}/{w}"


def run(mesh, report, ttl):
    report.title("The mesh: one agent, three workloads, a sidecar each")
    mesh.up()
    capture = Capture(mesh.switch)
    load = Load(mesh.ns["frontend"], mesh.ip4["orders"], HTTP_PORT, "/orders", mesh.marker("orders"))
    try:
        identities(mesh, report)
        report.title("Who may call whom")
        allowed(mesh, report)
        denied(mesh, report)
        opaque(mesh, report)
        report.title("What the wire carries")
        wire(mesh, report, capture)
        outsiders(mesh, report)
        report.title("Access that is taken away")
        policy_edit(mesh, report)
        report.title(f"Certificates of {ttl} rotate under traffic")
        rotation(mesh, report, load)
    finally:
        load.stop()
        capture.close()


def identities(mesh, report):
    for w in WORKLOADS:
        i = mesh.status(w)["identity"]
        report.step(
            f"{w} has its own identity",
            spiffe_id(w),
            f"{i['spiffe_id']} (serial {i['serial'][:8]}…, until {i['not_after']})",
            i["spiffe_id"] == spiffe_id(w),
        )


def last_event(mesh, w, event, **want):
    """The newest matching line in a sidecar's log; waits for it, since logs are written apart."""

    def find():
        return [e for e in mesh.log_events(w, event) if all(e.get(k) == v for k, v in want.items())]

    try:
        return wait_for(f"a {event} line in {w}'s log", find, timeout=5)[-1]
    except LabError:
        return {}


def allowed(mesh, report):
    p = mesh.curl("frontend", "http://orders:8080/orders", "-w", "\n%{http_code}")
    body, _, status = p.stdout.rpartition("\n")
    e = last_event(mesh, "orders", "request", peer_id=spiffe_id("frontend"), status=200)
    ok = status == "200" and mesh.marker("orders") in body and e.get("rule") == "frontend-reads-orders"
    report.step(
        "frontend calls orders with plain curl",
        "200 and the order, allowed by rule frontend-reads-orders",
        f"{status} {body.strip()!r}, {e.get('peer_id')} allowed by {e.get('rule')}",
        ok,
    )


def denied(mesh, report):
    p = mesh.curl("ledger", "http://orders:8080/orders", "-i", "-w", "\n%{http_code}")
    status = p.stdout.rpartition("\n")[2]
    headers = dict(
        line.lower().split(": ", 1) for line in p.stdout.splitlines() if line.lower().startswith("x-postern")
    )
    decision = headers.get("x-postern-decision", "none")
    e = last_event(mesh, "orders", "request", decision=decision)
    report.step(
        "ledger calls orders the same way",
        "403 with a decision id that the log explains by who calls",
        f"{status}, decision {decision}: {e.get('peer_id')}, {e.get('reason')}, {e.get('near_miss')}",
        status == "403" and e.get("peer_id") == spiffe_id("ledger") and mesh.marker("orders") not in p.stdout,
    )
    p = mesh.curl("frontend", "http://orders:8080/orders", "-X", "DELETE", "-w", "\n%{http_code}")
    status = p.stdout.rpartition("\n")[2]
    e = last_event(mesh, "orders", "request", peer_id=spiffe_id("frontend"), status=403)
    report.step(
        "frontend may read but not delete",
        "403, and the nearest rule's clause that failed",
        f"{status}, {e.get('near_miss')}",
        status == "403",
    )
    p = mesh.curl("orders", "http://ledger:8080/orders", "-w", "\n%{http_code}")
    q = mesh.curl("frontend", "http://ledger:8080/orders", "-w", "\n%{http_code}")
    seen = (p.stdout.rpartition("\n")[2], q.stdout.rpartition("\n")[2])
    report.step("orders may call ledger, frontend may not", "200 and 403", " and ".join(seen), seen == ("200", "403"))


def talk(mesh, w, address, port, lines=(b"one\n",)):
    """A raw TCP client: what it read, or how it ended."""
    with in_netns(mesh.ns[w]):
        try:
            with socket.create_connection((address, port), timeout=10) as s:
                got = s.recv(200)
                for line in lines:
                    s.sendall(line)
                s.shutdown(socket.SHUT_WR)
                while chunk := s.recv(4096):
                    got += chunk
                return got.decode()
        except ConnectionResetError:
            return "reset"
        except OSError as e:
            return type(e).__name__


def opaque(mesh, report):
    want = f"ticker ready {mesh.marker('orders')}\ntick one\n"
    for family, address in (("IPv4", mesh.ip4["orders"]), ("IPv6", mesh.ip6["orders"])):
        got = talk(mesh, "frontend", address, TICKER_PORT)
        report.step(
            f"a server that speaks first, over {family}",
            "its greeting, the answer, and the end after our half-close",
            repr(got),
            got == want,
        )
    got = talk(mesh, "frontend", mesh.ip4["orders"], UNLISTED_PORT)
    e = last_event(mesh, "orders", "connection", peer_id=spiffe_id("frontend"), port=UNLISTED_PORT)
    report.step(
        "a port that no rule speaks of", "the connection is reset", f"{got}: {e.get('reason')}", got == "reset"
    )


def wire(mesh, report, capture):
    plain = f"{mesh.lab.prefix}-plain-on-purpose".encode()
    with in_netns(mesh.switch):
        server = socket.create_server(("10.77.0.254", 9))
    with in_netns(mesh.ns["outside"]):
        with socket.create_connection(("10.77.0.254", 9), timeout=5) as s:
            s.sendall(plain)
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
    server.close()
    wait_for("the capture to see its own proof", lambda: capture.holds(plain), timeout=5)
    leaked = [w for w in WORKLOADS if capture.holds(mesh.marker(w).encode())]
    records, hellos = capture.tls_records(), capture.handshakes()
    report.step(
        "the capture sees the link",
        "TLS handshakes, TLS records and the marker that was sent in plaintext on purpose",
        f"{hellos} TLS flows, {records} TLS records, plain marker seen, {capture.size()} bytes",
        capture.holds(plain) and records >= 10 and hellos >= 4,
    )
    report.step(
        "no workload's bytes are readable on it",
        "none of the three workloads' markers",
        f"markers seen: {leaked or 'none'}",
        not leaked,
    )


def outsiders(mesh, report):
    seen = []
    for port in (HTTP_PORT, TICKER_PORT, 15006):
        with in_netns(mesh.ns["outside"]):
            try:
                with socket.create_connection((mesh.ip4["orders"], port), timeout=10) as s:
                    s.sendall(b"GET /orders HTTP/1.1\r\nHost: orders\r\n\r\n")
                    got = s.recv(4096)
                    seen.append("closed" if not got or got[:1] == b"\x15" else repr(got[:40]))
            except OSError as e:
                seen.append(type(e).__name__)
    report.step(
        "plaintext from outside the mesh",
        "refused on every port, the sidecar's own included: at most a TLS alert comes back",
        ", ".join(seen),
        all(s in ("closed", "ConnectionResetError", "ConnectionRefusedError") for s in seen),
    )
    p = mesh.curl("outside", f"https://{mesh.ip4['orders']}:{HTTP_PORT}/orders", "-k", "--tlsv1.3")
    report.step(
        "TLS from outside without a certificate",
        "refused",
        f"curl exit {p.returncode}: {p.stderr.strip()[:90]}",
        p.returncode != 0 and mesh.marker("orders") not in p.stdout,
    )


def policy_edit(mesh, report):
    with in_netns(mesh.ns["frontend"]):
        live = socket.create_connection((mesh.ip4["orders"], TICKER_PORT), timeout=10)
    with live:
        live.recv(200)
        live.sendall(b"before\n")
        before = live.recv(200)
        mesh.write_policy(ticker=False)
        mesh.sidecar["orders"].send_signal(signal.SIGHUP)
        start = time.monotonic()
        try:
            live.settimeout(5)
            end = "closed" if live.recv(200) == b"" else "still answers"
        except ConnectionResetError:
            end = "reset"
        except TimeoutError:
            end = "still open"
        took = time.monotonic() - start
    e = last_event(mesh, "orders", "connection", port=TICKER_PORT, reason="policy_changed")
    again = talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT)
    report.step(
        "a rule is taken out of the policy: its live connection ends",
        "reset within a second, and a new one is refused",
        f"answered {before!r}, then {end} after {took * 1000:.0f} ms ({e.get('reason')}); anew: {again}",
        before == b"tick before\n" and end == "reset" and took < 1 and again == "reset",
    )
    mesh.write_policy(ticker=True)
    mesh.sidecar["orders"].send_signal(signal.SIGHUP)

    def back():
        return talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT).startswith("ticker ready")

    wait_for("the rule to be back", back, timeout=5)
    broken = mesh.conf / "policy.yaml"
    good = broken.read_text()
    broken.write_text(good.replace("methods:", "metods:"))
    mesh.sidecar["orders"].send_signal(signal.SIGHUP)
    e = last_event(mesh, "orders", "reload_failed")
    still = talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT)
    broken.write_text(good)
    report.step(
        "a broken policy file",
        "named with line and column, and the old policy stays",
        json.dumps({k: e.get(k) for k in ("where", "error")}) + f"; ticker: {still[:12]!r}",
        "policy.yaml:" in str(e.get("where")) and still.startswith("ticker ready"),
    )


def rotation(mesh, report, load):
    first = {w: mesh.status(w)["identity"]["serial"] for w in WORKLOADS}
    before = load.done

    def rotated():
        return all(mesh.status(w)["identity"]["serial"] != first[w] for w in WORKLOADS)

    report.say("waiting for every sidecar's next certificate, requests go on")
    wait_for("every sidecar to renew", rotated, timeout=150, interval=0.5)
    wait_for("requests after the renewal", lambda: load.done > before + 50, timeout=20)
    load.stop()
    now = {w: mesh.status(w)["identity"]["serial"] for w in WORKLOADS}
    report.step(
        "new certificates for all three",
        "three new serial numbers",
        ", ".join(f"{w} {first[w][:6]}… → {now[w][:6]}…" for w in WORKLOADS),
        all(first[w] != now[w] for w in WORKLOADS),
    )
    report.step(
        "requests meanwhile",
        "none failed",
        f"{load.done} requests since the start, {len(load.failed)} failed {load.failed[:3] or ''}",
        load.done > 100 and not load.failed,
    )
