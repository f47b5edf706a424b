"""servers: small servers that a test plays in a namespace, on threads of its own."""

import os
import socket
import threading

from lab import in_netns


class _Server:
    """Calls handle(connection) on a thread for each connection of a listening socket."""

    def __init__(self, sock, handle):
        self.sock, self.handle, self.accepted = sock, handle, 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._one, args=(conn,), daemon=True).start()

    def _one(self, conn):
        with conn:
            try:
                self.handle(conn)
            except OSError:
                pass

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class TcpServer(_Server):
    """On a port of its own or the one it was given; port says which."""

    def __init__(self, netns, handle, port=0, host="127.0.0.1"):
        with in_netns(netns):
            sock = socket.create_server((host, port), backlog=1024)
        self.port = sock.getsockname()[1]
        super().__init__(sock, handle)


class UnixServer(_Server):
    def __init__(self, path, handle, mode=0o666):
        self.path = path
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        os.chmod(path, mode)
        sock.listen(1024)
        super().__init__(sock, handle)


def echo(conn):
    while data := conn.recv(65536):
        conn.sendall(data)
    conn.shutdown(socket.SHUT_WR)


def greet_then_echo(conn):
    conn.sendall(b"220 ready\r\n")
    echo(conn)


def http_one(conn):
    """Answers every request of a kept connection with what it received, head included."""
    f = conn.makefile("rb")
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = f.readline()
            if not line:
                return
            head += line
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = f.read(length) if length else b""
        out = head + body
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(out) + out)
