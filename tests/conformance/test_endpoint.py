"""SPIFFE_Workload_Endpoint.md, and gRPC over HTTP/2 as clients really speak it."""

import socket
import subprocess
import sys

import pytest
from h2.exceptions import ProtocolError
from rawgrpc import EMPTY, WORKLOAD, Ended, Raw, frame

API = "/SpiffeWorkloadAPI/"
STREAMS = ("FetchX509SVID", "FetchX509Bundles")
JWT = ("FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID")
NOT_SERVED = ("FetchWITSVID", "FetchWITBundles")
SIGN = "/postern.v1.Identity/SignX509SVID"
METHODS = [API + m for m in STREAMS + JWT + NOT_SERVED] + [SIGN]

INVALID_ARGUMENT, PERMISSION_DENIED, UNIMPLEMENTED = 3, 7, 12
PROTOCOL_ERROR = 1

BAD_METADATA = {
    "missing": (),
    "other case": (("workload.spiffe.io", "True"),),
    "empty": (("workload.spiffe.io", ""),),
    "false": (("workload.spiffe.io", "false"),),
    "joined": (("workload.spiffe.io", "true,true"),),
    "twice": (WORKLOAD, WORKLOAD),
    "near by name": (("workload-spiffe-io", "true"),),
}


def test_security_header_on_every_method(agent):
    """Section 5: without the metadata InvalidArgument, whatever the method and whoever calls."""
    agent.start()
    with Raw(agent.socket) as c:
        for path in METHODS:
            for what, metadata in BAD_METADATA.items():
                s = c.call(path, metadata=metadata)
                assert s.status == INVALID_ARGUMENT, f"{path}, {what}: {s.status} {s.text}"
                assert s.headers[":status"] == "200"
        assert '"issued"' not in agent.node.agent.err(), "an SVID was issued for a call without the metadata"


def test_security_header_comes_before_identity(agent):
    """A caller without identity is told about the metadata first, and then PermissionDenied."""
    agent.start()
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from rawgrpc import Raw\n"
        "for metadata in ((), (('workload.spiffe.io', 'true'),)):\n"
        "    with Raw(sys.argv[1]) as c:\n"
        "        for m in ('FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'):\n"
        "            print(c.call('/SpiffeWorkloadAPI/' + m, metadata=metadata).status)\n"
    )
    out = agent.lab.run_in(
        [sys.executable, "-c", code, agent.socket, ":".join(sys.path)], uid=agent.nobody, with_hosts=False
    )
    assert out.stdout.split() == ["3", "3", "3", "7", "7", "7"], out.stdout + out.stderr


def test_methods_that_are_not_served(agent):
    agent.start()
    with Raw(agent.socket) as c:
        for m in NOT_SERVED:
            assert c.call(API + m).status == UNIMPLEMENTED, m
        for path in ("/SpiffeWorkloadAPI/Nope", "/spiffe.workload.SpiffeWorkloadAPI/FetchX509SVID", "/", "/x"):
            assert c.call(path).status == UNIMPLEMENTED, path
            assert c.call(path, metadata=()).status == UNIMPLEMENTED, path


AUTHORITIES = {
    "grpc-go, tonic, grpc-js": "localhost",
    "grpc-core": lambda p: p.lstrip("/").replace("/", "%2F"),
    "grpc-java": lambda p: p,
    "none": None,
    "something else": "example.com:443",
}


def test_authorities_of_all_clients(agent):
    """Clients name a Unix socket in different ways; nothing depends on it."""
    agent.start()
    for client, authority in AUTHORITIES.items():
        with Raw(agent.socket) as c:
            s = c.open(API + "FetchX509SVID", authority=authority(str(agent.socket)) if callable(authority) else authority)
            assert s.next(), client


def test_requests_in_pieces(agent):
    """A message split over DATA frames, and one of five zero bytes; trailing metadata of a client."""
    agent.start()
    with Raw(agent.socket) as c:
        s = c.open(API + "FetchX509Bundles", body=b"", end=False)
        for byte in EMPTY:
            c.h2.send_data(s.id, bytes([byte]))
            c.flush()
        c.h2.end_stream(s.id)
        c.flush()
        assert s.next()
        s = c.open(API + "FetchX509Bundles", body=EMPTY, end=False)
        c.h2.send_headers(s.id, [("x-late", "1")], end_stream=True)
        c.flush()
        assert s.next()


BASE = [(":method", "POST"), (":scheme", "http"), (":path", API + "FetchX509SVID"), (":authority", "localhost")]
GRPC = [("te", "trailers"), ("content-type", "application/grpc"), WORKLOAD]
MALFORMED = {
    "upper case name": BASE + GRPC + [("X-Upper", "1")],
    "connection field": BASE + GRPC + [("connection", "close")],
    "te": BASE + [("te", "gzip"), ("content-type", "application/grpc"), WORKLOAD],
    "two methods": BASE + [(":method", "POST")] + GRPC,
    "late pseudo-header": BASE[:3] + GRPC + BASE[3:],
    "no path": BASE[:2] + BASE[3:] + GRPC,
    "response field": BASE + [(":status", "200")] + GRPC,
    "line feed": BASE + GRPC + [("x", "a\nb")],
    "content-length": BASE + GRPC + [("content-length", "4")],
}


def test_malformed_requests(agent):
    agent.start()
    with Raw(agent.socket) as c:
        for what, headers in MALFORMED.items():
            s = c.call(None, headers=headers)
            assert s.reset == PROTOCOL_ERROR, f"{what}: {s.status} {s.headers} {s.reset}"
        for what, change, status in (
            ("GET", lambda h: [(":method", "GET")] + h[1:], "405"),
            ("JSON", lambda h: [x for x in h if x[0] != "content-type"] + [("content-type", "application/json")], "415"),
        ):
            s = c.call(None, headers=change(BASE + GRPC))
            assert s.headers[":status"] == status, what
        assert c.open(API + "FetchX509SVID").next()  # the connection is as good as before


def test_broken_messages(agent):
    agent.start()
    with Raw(agent.socket) as c:
        for what, body, status in (
            ("compressed", frame(b"", compressed=1), 12),
            ("half", EMPTY[:3], 13),
            ("none", b"", 12),
            ("two", EMPTY * 2, 12),
            ("too large", b"\0\xff\xff\xff\xff", 8),
        ):
            s = c.call(API + "FetchX509SVID", body=body)
            assert s.status == status, f"{what}: {s.status} {s.text}"


def test_floods_end_only_their_own_connection(agent):
    agent.start()
    with Raw(agent.socket) as good, Raw(agent.socket) as bad:
        stream = good.open(API + "FetchX509SVID")
        stream.next()
        # However the end shows: as a closed socket, or to h2, which then refuses to send any more.
        with pytest.raises((Ended, ProtocolError)):
            for _ in range(20):
                for _ in range(100):
                    bad.h2.ping(b"12345678")
                bad.flush()
                bad.pump(1)
        with Raw(agent.socket) as rapid, pytest.raises((Ended, ProtocolError)):
            for _ in range(2000):
                s = rapid.open(API + "FetchX509SVID", end=False)
                rapid.h2.reset_stream(s.id)
                rapid.flush()
            while True:
                rapid.pump(5)
        assert good.open(API + "FetchX509Bundles").next()


def test_not_http2(agent):
    agent.start()
    for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(5000)):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(15)
        s.connect(str(agent.socket))
        s.sendall(garbage)
        try:
            while s.recv(4096):
                pass
        except ConnectionResetError:
            pass
        s.close()
    with Raw(agent.socket) as c:
        assert c.open(API + "FetchX509SVID").next()


def test_a_reader_that_does_not_read_holds_up_nobody(agent):
    agent.start(ttl="10s")
    lazy = socket.socket(socket.AF_UNIX)
    lazy.connect(str(agent.socket))
    stuck = [Raw(agent.socket, sock=lazy)]
    for _ in range(30):
        stuck[0].open(API + "FetchX509SVID")
    with Raw(agent.socket) as c:
        s = c.open(API + "FetchX509SVID")
        for _ in range(2):
            assert s.next()
    lazy.close()


def test_socket_passed_on_after_the_caller_ended(agent):
    """The identity is the connecting process's; nobody inherits it."""
    agent.start()
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b'x'], [s.fileno()])\n"
    )
    p = subprocess.Popen(
        [sys.executable, "-c", code, str(agent.socket), str(theirs.fileno())], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    assert p.wait(timeout=20) == 0
    try:
        with Raw(agent.socket, sock=socket.socket(fileno=fds[0])) as c:
            s = c.call(API + "FetchX509SVID")
            assert s.status == PERMISSION_DENIED or s.reset is not None
            assert not s.messages
    except Ended:
        pass  # closed at once is as good
