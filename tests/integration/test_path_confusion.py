"""Paths that are judged as one thing must not be served as another. nginx says which path it goes by ($uri), and so does a
Go server where POSTERN_TEST_GO names a `go`; the policy forbids /admin. A port that takes none of the ambiguous paths is
asked, and one that takes all of them."""

import itertools
import os
import socket
import subprocess
from urllib.parse import unquote_to_bytes

import pytest
from desync import PATHS
from lab import free_port, wait_for
from tls_servers import NGINX

POLICY = """kind: Policy
level: 1
rules:
  - name: all
    action: ALLOW
    to:
      - paths: ["/*"]
  - name: not-admin
    action: DENY
    to:
      - paths: ["/admin", "/admin/*"]
"""
ALL = "[encoded_slash, encoded_backslash, semicolon, double_slash, dot_segments, encoded_plain, double_encoding, overlong]"

SEPARATORS = (b"/", b"%2f", b"%5c", b"//", b"/./", b"/;/", b";/", b"%252f", b"%c0%af")
UPS = (b"..", b"%2e%2e", b".%2e", b"..;", b"..;a=b", b"%252e%252e", b"%c0%ae%c0%ae", b".%c0%ae")
DIRECT = (
    b"/admin", b"/admin/x", b"/admin;/x", b"/admin;a=b", b"/;/admin/x", b"/%61dmin/x", b"/adm%69n", b"/%61%64%6d%69%6e", b"/%2561dmin", b"//admin/x", b"/./admin/x", b"/admin//x", b"/admin/./x", b"/admin%2fx", b"/admin%5cx", b"/%2fadmin/x",
    b"/%5cadmin/x", b"/admin%3bx/y", b"/admin%00", b"/admin%20/../x", b"/admin/../admin/x", b"/x/..;/admin/x", b"/x;/../admin/x", b"/pub/%2e%2e;/admin", b"/%c0%afadmin", b"/%e1admin", b"/admin%c0%afx", b"/ADMIN/x", b"/admin.", b"/admin%2e", b"/admin%2e/x",
    b"/admin?x", b"/pub?/../admin", b"/pub/a%20b", b"/pub/%c3%a9", b"/pub/a%25b", b"/pub/a%2520b", b"/pub/a+b", b"/pub/a:b@c,d'e(f)", b"/pub/%e9", b"/pub/", b"/pub/.a", b"/pub/a...b",
)


def corpus():
    between = [b"/pub" + s + up + t + b"admin/x" for s, up, t in itertools.product(SEPARATORS, UPS, (b"/", b"%2f"))]
    return list(dict.fromkeys([*PATHS, *DIRECT, *between]))


def nginx(node, port):
    d = node.lab.private_dir("nginx-paths")
    temp = "".join(f"{k}_temp_path {d}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (d / "nginx.conf").write_text(
        f"pid {d}/pid; error_log {d}/error.log; worker_processes 1; user www-data; events {{}}\n"
        f"http {{ access_log off; {temp} default_type text/plain;\n"
        f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "$uri"; }} }} }}\n'
    )
    return node.lab.start("nginx-paths", [NGINX, "-p", d, "-c", d / "nginx.conf", "-g", "daemon off;"], netns=node.netns)


GO_SERVER = """package main
import ("fmt"; "net/http"; "os")
func main() { http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })) }
"""


def go(node, port):
    d = node.lab.private_dir("go-paths")
    (d / "main.go").write_text(GO_SERVER)
    subprocess.run([os.environ["POSTERN_TEST_GO"], "build", "-o", str(d / "server"), str(d / "main.go")], check=True, env={**os.environ, "GO111MODULE": "off"})
    return node.lab.start("go-paths", [d / "server", f"127.0.0.1:{port}"], netns=node.netns)


def ask(node, port, path):
    """Status and body."""
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


@pytest.fixture(params=["nginx", "go"])
def served(request, node):
    if request.param == "go" and "POSTERN_TEST_GO" not in os.environ:
        pytest.skip("POSTERN_TEST_GO names no go")
    if request.param == "nginx" and NGINX is None:
        pytest.fail("nginx is not installed")
    node.start_agent()
    back = free_port()
    (nginx if request.param == "nginx" else go)(node, back)
    ports = {}
    for name, extra in (("strict", ""), ("open", f"    paths: {{allow: {ALL}}}\n")):
        tls, ports[name] = free_port(), free_port()
        node.start_proxy(
            "server",
            f"  - name: in\n    direction: inbound\n    capture: explicit\n    address: 127.0.0.1:{tls}\n    to: 127.0.0.1:{back}\n    protocol: http\n{extra}",
            policy=POLICY,
        )
        node.client_side(ports[name], tls)
    wait_for("the server", lambda: ask(node, ports["strict"], b"/up")[0] == 200)
    return request.param, node, ports


def test_no_path_is_served_as_another(served):
    server, node, ports = served
    passed = {"strict": 0, "open": 0}
    for path in corpus():
        for port in ports:
            status, body = ask(node, ports[port], path)
            if status != 200:
                continue
            passed[port] += 1
            assert not (body == b"/admin" or body.startswith(b"/admin/")), (port, path, body)
            if port == "strict":
                assert body == unquote_to_bytes(path.split(b"?")[0]), (path, body)
    assert passed["strict"] >= 10
    assert passed["open"] > passed["strict"]
