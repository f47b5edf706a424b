"""tls_servers: Debian's nginx, PostgreSQL, MariaDB and Redis, each by its path, on a free port, with its own
directory, ended by its pid: with TLS of their own where `certs` are given, plain where not. What is not installed is
told by `missing`."""

import glob
import os
import pathlib
import pwd
import shutil
import socket

from lab import free_port, run, wait_for

def find(*patterns):
    """The last of what is there: the newest version."""
    found = [p for pattern in patterns for p in sorted(glob.glob(pattern)) if os.access(p, os.X_OK)]
    return pathlib.Path(found[-1]) if found else None

NGINX = find("/usr/sbin/nginx")
POSTGRES = find("/usr/lib/postgresql/*/bin/postgres")
PGBENCH = find("/usr/lib/postgresql/*/bin/pgbench", "/usr/bin/pgbench")
MARIADB = find("/usr/sbin/mariadbd")
REDIS = find("/usr/bin/redis-server")
KEYTOOL = find("/usr/bin/keytool", "/usr/lib/jvm/*/bin/keytool")

def listens(port):
    def ask():
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    return ask

class Nginx:
    """Serves `hello`, and something big at /big, with what lies in `certs`."""

    BIG = 2_000_000

    def __init__(self, lab, certs, cert="fullchain.pem", key="privkey.pem"):
        self.port = free_port()
        self.dir = lab.private_dir("nginx")
        self.pid_file = self.dir / "nginx.pid"
        self.executable = NGINX
        (self.dir / "big").write_bytes(b"b" * self.BIG)
        tls = "" if certs is None else f"""
    ssl_certificate {certs}/{cert};
    ssl_certificate_key {certs}/{key};
    ssl_session_tickets off;
    ssl_session_cache off;"""
        (self.dir / "nginx.conf").write_text(
            f"""pid {self.pid_file};
error_log {self.dir}/error.log warn;
worker_processes 2;
user www-data;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2; fastcgi_temp_path {self.dir}/t3;
  uwsgi_temp_path {self.dir}/t4; scgi_temp_path {self.dir}/t5;
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{self.port}{" ssl" if certs is not None else ""};{tls}
    location / {{ return 200 "hello"; }}
    location /big {{ root {self.dir}; }}
  }}
}}
"""
        )
        self.process = lab.start(
            "nginx", [NGINX, "-p", self.dir, "-c", self.dir / "nginx.conf", "-g", "daemon off;"]
        )
        wait_for("nginx", listens(self.port))

    def log(self):
        return (self.dir / "error.log").read_text() + self.process.err()

class Postgres:
    USER = "postgres"

    def __init__(self, lab, certs, cert="server.crt", key="server.key"):
        self.port = free_port()
        self.user = pwd.getpwnam(self.USER)
        self.lab = lab
        self.dir = lab.private_dir("postgres", self.user.pw_uid, 0o755)
        self.data = self.dir / "data"
        self.pid_file = self.data / "postmaster.pid"
        self.executable = POSTGRES
        self.as_user(POSTGRES.parent / "initdb", "-D", self.data, "-A", "trust", "-N", "-U", "postgres", "--no-locale", "-E", "UTF8")
        with open(self.data / "postgresql.auto.conf", "a") as f:
            f.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{self.dir}'\n"
                f"fsync = off\nmax_connections = 60\n"
            )
            if certs is not None:
                f.write(f"ssl = on\nssl_cert_file = '{certs}/{cert}'\nssl_key_file = '{certs}/{key}'\n")
            else:
                # Whoever is let in by the gateway reaches its socket.
                f.write("unix_socket_permissions = 0777\n")
        over_tcp = "hostssl" if certs is not None else "host"
        (self.data / "pg_hba.conf").write_text(f"local all all trust\n{over_tcp} all all 127.0.0.1/32 trust\n")
        # SIGINT is its fast end.
        self.process = lab.start("postgres", self.argv(POSTGRES, "-D", self.data))
        wait_for("postgres", listens(self.port))
        wait_for("postgres to answer", lambda: self.query("select 1") == "1")

    def argv(self, *argv):
        u = self.user
        return ["setpriv", f"--reuid={u.pw_uid}", f"--regid={u.pw_gid}", "--clear-groups", "--", *map(str, argv)]

    def as_user(self, *argv):
        return run(*self.argv(*argv), cwd="/", timeout=120)

    def query(self, sql):
        p = run(POSTGRES.parent / "psql", "-h", self.dir, "-p", self.port, "-U", "postgres", "-Atc", sql, check=False)
        return p.stdout.strip() if p.returncode == 0 else None

    def log(self):
        return self.process.err()

class MariaDB:
    USER = "mysql"

    def __init__(self, lab, certs, cert="tls.crt", key="tls.key"):
        self.port = free_port()
        self.user = pwd.getpwnam(self.USER)
        self.dir = lab.private_dir("mariadb", self.user.pw_uid, 0o755)
        self.socket = self.dir / "sock"
        self.pid_file = self.dir / "pid"
        self.executable = MARIADB
        run(
            "mariadb-install-db", "--no-defaults", f"--datadir={self.dir}/data", "--user=mysql",
            "--auth-root-authentication-method=normal", "--skip-test-db", timeout=120,
        )  # fmt: skip
        self.process = lab.start(
            "mariadb",
            [MARIADB, "--no-defaults", "--user=mysql", f"--datadir={self.dir}/data", f"--socket={self.socket}",
             f"--pid-file={self.pid_file}", f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-log-bin",
             *([f"--ssl-cert={certs}/{cert}", f"--ssl-key={certs}/{key}"] if certs is not None else [])],
        )  # fmt: skip
        wait_for("mariadb", listens(self.port), 60)

    def flush(self):
        """Takes the new certificate: MariaDB does so on FLUSH SSL."""
        run("mariadb", "--no-defaults", f"--socket={self.socket}", "-uroot", "-e", "FLUSH SSL")

    def log(self):
        return self.process.err()

class Redis:
    def __init__(self, lab):
        self.port = free_port()
        self.dir = lab.private_dir("redis")
        self.process = lab.start(
            "redis",
            [REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.dir],
        )
        wait_for("redis", listens(self.port))


def missing(*what):
    """Why a test with these cannot run here, or None."""
    for path, name in ((NGINX, "nginx"), (POSTGRES, "postgres"), (PGBENCH, "pgbench"), (MARIADB, "mariadb"), (REDIS, "redis"), (KEYTOOL, "keytool")):
        if name in what and path is None:
            return f"{name} is not installed"
    if "mariadb" in what and shutil.which("mariadb-install-db") is None:
        return "mariadb-install-db is not installed"
    return None

__all__ = ["KEYTOOL", "LabError", "MariaDB", "Nginx", "PGBENCH", "POSTGRES", "Postgres", "Redis", "missing", "subprocess"]
