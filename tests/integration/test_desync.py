"""Request desynchronisation, on the wire: what desync.py and desync_responses.py make, through two proxies.

A workload that keeps every byte it gets. What is refused reaches it in no whole request; what passes is read there by two
parsers that know nothing of each other, and is the request that was judged.
POSTERN_TEST_GO=/usr/bin/go has Go's parser read it as well.
"""

import base64
import json
import os
import select
import socket
import subprocess

import desync
import desync_responses
import h11
import pytest
from lab import free_port, wait_for

POLICY = """kind: Policy
level: 1
rules:
  - name: all
    action: ALLOW
    to:
      - paths: ["*"]
"""
OURS = {b"connection", b"te", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-client-cert", b"via", b"traceparent"}
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE = 20


class Wire:
    """Connections one after the other: client and workload are played by this thread."""

    def __init__(self, node, port, listener):
        self.node, self.port, self.listener = node, port, listener

    def client(self):
        with self.node.inside():
            s = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def pending(self, *socks):
        return select.select(socks, [], [], PATIENCE)[0]


@pytest.fixture
def wire(node):
    node.start_agent()
    with node.inside():
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    tls, plain = free_port(), free_port()
    proxy = node.server_side(tls, listener.getsockname()[1], protocol="http", policy=POLICY, extra="http: {upstream_pool: 'off'}\n")
    node.client_side(plain, tls)
    yield Wire(node, plain, listener), proxy
    listener.close()


def recv(s):
    try:
        return s.recv(1 << 18)
    except ConnectionError:
        return b""


# --- two readers ------------------------------------------------------------------------------------------------------


def by_h11(data):
    """The requests that are whole, as (method, target, headers, body)."""
    c, out = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17), []
    c.receive_data(data)
    try:
        while True:
            head, body = c.next_event(), b""
            if not isinstance(head, h11.Request):
                return out
            while isinstance(e := c.next_event(), h11.Data):
                body += bytes(e.data)
            if not isinstance(e, h11.EndOfMessage):
                return out
            out.append((head.method, head.target, [(n.lower(), v) for n, v in head.headers], body))
            c.send(h11.Response(status_code=200, headers=[("Content-Length", "0")], reason=b""))
            c.send(h11.EndOfMessage())
            if c.our_state is h11.MUST_CLOSE:
                return out
            c.start_next_cycle()
    except h11.RemoteProtocolError:
        return out


def by_hand(data):
    """The same, by splitting: as simple as it can be."""
    out = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        method, target, _ = line.split(b" ")
        headers = [(n.lower(), v.strip(b" \t")) for n, v in (e.split(b":", 1) for e in lines)]
        d = dict(headers)
        if b"transfer-encoding" in d:
            body = b""
            while True:
                size, sep, more = rest.partition(b"\r\n")
                if not sep:
                    return out
                n = int(size.split(b";")[0], 16)
                if n == 0:
                    break
                if len(more) < n + 2:
                    return out
                body, rest = body + more[:n], more[n + 2 :]
            while True:  # trailers
                trailer, sep, more = more.partition(b"\r\n")
                if not sep:
                    return out
                if not trailer:
                    break
            rest = more
        else:
            n = int(d.get(b"content-length", b"0"))
            if len(rest) < n:
                return out
            body, rest = rest[:n], rest[n:]
        out.append((method, target, headers, body))
        data = rest
    return out


def plain(request):
    """Without what is ours."""
    method, target, headers, body = request
    return method, target, [h for h in headers if h[0] not in OURS], body


def wanted(request):
    method, target, lines, body = request
    split = [e.split(b":", 1) for e in lines]
    return method, target, [(n.lower(), v.strip(b" \t")) for n, v in split], body


# --- requests ---------------------------------------------------------------------------------------------------------


def exchange(wire, case):
    """What the client got, and what the workload got, answering every whole request."""
    client, ups, got, seen, answered = wire.client(), [], b"", {}, {}
    client.sendall(case.data)
    ended = False
    while not ended:
        for s in wire.pending(client, wire.listener, *ups) or pytest.fail(f"{case.family}: nothing happens: {case.data[:200]!r}"):
            if s is client:
                chunk = recv(client)
                ended, got = not chunk, got + chunk
                if not case.refused and got.count(REPLY) == len(case.requests):
                    ended = True
            elif s is wire.listener:
                u = s.accept()[0]
                ups.append(u)
                seen[u], answered[u] = b"", 0
            elif chunk := recv(s):
                seen[s] += chunk
                whole = len(by_h11(seen[s]))
                if whole > answered[s]:
                    try:
                        s.sendall(REPLY * (whole - answered[s]))
                    except ConnectionError:
                        pass
                    answered[s] = whole
            else:
                ups.remove(s)
    client.close()
    # What was sent before the answer is here; what there is of it is read.
    while ready := select.select([wire.listener, *ups], [], [], 0)[0]:
        for s in ready:
            if s is wire.listener:
                u = s.accept()[0]
                ups.append(u)
                seen[u] = b""
            elif chunk := recv(s):
                seen[s] += chunk
            else:
                ups.remove(s)
    for u in seen:
        u.close()
    return got, list(seen.values())


def check_request(case, got, seen):
    arrived = [r for data in seen for r in by_h11(data)]
    assert arrived == [r for data in seen for r in by_hand(data)], f"{case.family}: two readings of {seen!r}"
    assert [plain(r) for r in arrived] == [wanted(r) for r in case.requests], f"{case.family} {case.data[:300]!r}: {seen!r}"
    if case.refused:
        last = got[got.rfind(b"HTTP/1.1 ") :]
        assert b"x-postern-reason: %s\r\n" % case.refused.encode() in last, f"{case.family} {case.data[:300]!r}: {got!r}"
        assert b"x-postern-decision: " in last and b"Connection: close" in last
    assert got.count(b"HTTP/1.1 ") == len(case.requests) + bool(case.refused), f"{case.family} {case.data[:300]!r}: {got!r}"


GO_READER = """
package main
import ("bufio"; "bytes"; "encoding/json"; "io"; "net/http"; "os")
func main() {
  var in [][]byte
  if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil { panic(err) }
  out := [][][]string{}
  for _, data := range in {
    r, one := bufio.NewReader(bytes.NewReader(data)), [][]string{}
    for {
      q, err := http.ReadRequest(r)
      if err != nil { break }
      body, err := io.ReadAll(q.Body)
      if err != nil { break }
      one = append(one, []string{q.Method, q.RequestURI, q.Host, string(body)})
    }
    out = append(out, one)
  }
  json.NewEncoder(os.Stdout).Encode(out)
}
"""


def check_by_go(tmp_path, streams):
    """As Go's net/http reads it."""
    go = os.environ.get("POSTERN_TEST_GO")
    if not go:
        return
    (tmp_path / "main.go").write_text(GO_READER)
    text = json.dumps([base64.b64encode(d).decode() for d, _ in streams])
    argv = [go, "run", str(tmp_path / "main.go")]
    p = subprocess.run(argv, input=text, text=True, capture_output=True, env={**os.environ, "GO111MODULE": "off"}, timeout=300)
    assert p.returncode == 0, p.stderr
    for (data, requests), read in zip(streams, json.loads(p.stdout), strict=True):
        assert [r[:2] + r[3:] for r in read] == [[m.decode("latin-1"), t.decode("latin-1"), b.decode("latin-1")] for m, t, _, b in requests], data


def test_requests(wire, tmp_path):
    wire, proxy = wire
    cases = desync.requests()
    assert len(cases) >= 1600
    assert len({c.data for c in cases}) >= 1600, "the same again is no case"
    forwarded = []
    for case in cases:
        got, seen = exchange(wire, case)
        check_request(case, got, seen)
        forwarded += [(data, case.requests) for data in seen if data and case.requests]
    assert len(forwarded) > 100
    # What was judged is what arrived: the log says by what.
    arrived = [r for _, requests in forwarded for r in requests]

    def allowed():
        return [e for e in proxy.events("request") if e["status"] == 200]

    wait_for("a line for each request", lambda: len(allowed()) >= len(arrived))
    judged = allowed()
    assert len(judged) == len(arrived)
    for e, (method, target, _, _) in zip(judged, arrived, strict=True):
        assert e["method"] == method.decode() and e["host"] == "a", e
        assert e["path"].startswith(target.split(b"?")[0].split(b"%")[0].decode()[:60]), e
    check_by_go(tmp_path, forwarded)


# --- responses --------------------------------------------------------------------------------------------------------


def hear(wire, case):
    """What the client gets, and whether the workload's connection was ended."""
    client = wire.client()
    client.sendall(b"%s /d HTTP/1.%d\r\nHost: a\r\n\r\n" % (case.method, case.minor))
    up = wire.listener.accept()[0]
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += up.recv(65536)
    try:
        up.sendall(case.data)
        up.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    got, reset = b"", False
    client.settimeout(PATIENCE)
    try:
        while not (case.sees and len(got) >= len(case.sees)) and not (case.token and got.endswith(b")\n")):
            chunk = client.recv(65536)
            if not chunk:
                break
            got += chunk
    except ConnectionError:
        reset = True
    up.close()
    return client, got, reset


def test_responses(wire):
    wire, _ = wire
    wire.listener.settimeout(PATIENCE)
    cases = list(desync_responses.responses())
    assert len(cases) >= 300
    for case in cases:
        client, got, reset = hear(wire, case)
        what = f"{case.family} {case.data[:200]!r}: {got!r}"
        if case.token:
            assert b"HTTP/1.1 502 " in got and b"HTTP/1.1 200" not in got and b"x-postern-reason: %s\r\n" % case.token.encode() in got, what
            assert b"hello" not in got and b"evil" not in got, what
        elif case.cut:
            assert b"200 OK" not in got or reset, what
        else:
            assert got == case.sees, what
            # Nothing of what came behind is the next answer: there is a new connection for that.
            client.sendall(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            up = wire.listener.accept()[0]
            while b"\r\n\r\n" not in up.recv(65536):
                pass
            up.sendall(REPLY)
            rest = b""
            while chunk := recv(client):
                rest += chunk
            assert rest.endswith(b"\r\n\r\nok") and b"evil" not in rest, what + repr(rest)
            up.close()
        client.close()
