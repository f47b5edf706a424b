"""rawgrpc: gRPC by hand over a Unix socket, so that a test chooses every header field and frame.

What comes back is checked by h2 (a peer's broken HTTP/2 raises); what goes out is not.
"""

import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from lab import PATIENCE_S

WORKLOAD = ("workload.spiffe.io", "true")
EMPTY = b"\0\0\0\0\0"


def frame(message, compressed=0):
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Ended(Exception):
    """The connection was closed by the peer."""


class Raw:
    def __init__(self, path, timeout=PATIENCE_S, sock=None):
        if sock is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
        self.path, self.sock = str(path), sock
        self.sock.settimeout(timeout)
        config = h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.streams = {}
        self.closed = False
        self.flush()

    def flush(self):
        try:
            self.sock.sendall(self.h2.data_to_send())
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True  # what it said before that is still read

    def open(self, path, metadata=(WORKLOAD,), body=EMPTY, authority="localhost", headers=None, end=True):
        """Sends a request. headers: the whole list, instead of what gRPC wants."""
        if headers is None:
            headers = [(":method", "POST"), (":scheme", "http"), (":path", path)]
            headers += [(":authority", authority)] if authority is not None else []
            headers += [("te", "trailers"), ("content-type", "application/grpc"), *metadata]
        stream = Stream(self, self.h2.get_next_available_stream_id())
        self.streams[stream.id] = stream
        self.h2.send_headers(stream.id, headers)
        for i in range(0, len(body), 16384):
            self.h2.send_data(stream.id, body[i : i + 16384])
        if end:
            self.h2.end_stream(stream.id)
        self.flush()
        return stream

    def call(self, path, **kw):
        """Until its end: the stream with everything in it."""
        s = self.open(path, **kw)
        s.wait_end()
        return s

    def pump(self, timeout=None):
        """Reads once; False if nothing came in time."""
        if timeout is not None:
            self.sock.settimeout(max(timeout, 0.001))
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            raise Ended
        for e in self.h2.receive_data(data):
            stream = self.streams.get(getattr(e, "stream_id", None))
            if stream is not None:
                stream.take(e)
        self.flush()
        return True

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Stream:
    def __init__(self, conn, stream_id):
        self.conn, self.id = conn, stream_id
        self.headers, self.trailers, self.reset, self.ended = None, None, None, False
        self.data, self.messages = b"", []

    def take(self, e):
        if isinstance(e, h2.events.ResponseReceived):
            self.headers = dict(e.headers)
        elif isinstance(e, h2.events.TrailersReceived):
            self.trailers = dict(e.headers)
        elif isinstance(e, h2.events.DataReceived):
            self.data += e.data
            self.conn.h2.acknowledge_received_data(e.flow_controlled_length, self.id)
            while len(self.data) >= 5 and len(self.data) - 5 >= int.from_bytes(self.data[1:5], "big"):
                n = int.from_bytes(self.data[1:5], "big")
                assert self.data[0] == 0, "a compressed message"
                self.messages.append(self.data[5 : 5 + n])
                self.data = self.data[5 + n :]
        elif isinstance(e, h2.events.StreamReset):
            self.reset, self.ended = int(e.error_code), True
        elif isinstance(e, h2.events.StreamEnded):
            self.ended = True

    @property
    def status(self):
        """The gRPC status, or None if there is none."""
        for h in (self.trailers, self.headers):
            if h is not None and "grpc-status" in h:
                return int(h["grpc-status"])
        return None

    @property
    def text(self):
        return (self.trailers or self.headers or {}).get("grpc-message", "")

    def wait_end(self, timeout=PATIENCE_S):
        end = time.monotonic() + timeout
        while not self.ended:
            assert self.conn.pump(end - time.monotonic()), f"stream {self.id} did not end within {timeout} s"
        return self

    def next(self, timeout=PATIENCE_S):
        """The next message."""
        end = time.monotonic() + timeout
        while not self.messages:
            assert not self.ended, f"ended with {self.status}: {self.text}, reset {self.reset}"
            assert self.conn.pump(end - time.monotonic()), f"no message within {timeout} s"
        return self.messages.pop(0)

    def quiet(self, seconds):
        """True if no message comes for so long: for what must not happen."""
        end = time.monotonic() + seconds
        while not self.messages and (left := end - time.monotonic()) > 0:
            self.conn.pump(left)
        return not self.messages
