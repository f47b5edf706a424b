"""PyPI's `spiffe` as a client of the Workload API; see ../README.md. It does not tell hints."""

import json
import re
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def say_error(e):
    m = re.search(r"StatusCode\.(\w+)", str(e))
    say("error", code=m[1] if m else type(e).__name__, text=str(e))


def say_x509(c):
    svids = [{"id": str(s.spiffe_id), "hint": None, "leaf": s.leaf.public_bytes(Encoding.DER).hex()} for s in c.x509_svids]
    say("x509", svids=svids, bundles=authorities(c.x509_bundle_set))


def authorities(bundles):
    return {b.trust_domain.name: len(b.x509_authorities) for b in bundles.bundles}


def main(verb, socket, *rest):
    client = WorkloadApiClient(f"unix:{socket}")
    if verb == "fetch":
        say_x509(client.fetch_x509_context(timeout=30))
        say("bundles", domains=authorities(client.fetch_x509_bundles(timeout=30)))
    elif verb == "watch":
        client.stream_x509_contexts(say_x509, say_error)
        threading.Event().wait()
    elif verb == "jwt":
        svids = client.fetch_jwt_svids(audience={rest[0]}, timeout=30)
        say("jwt", svids=[{"id": str(s.spiffe_id), "hint": None, "token": s.token} for s in svids])
        bundles = client.fetch_jwt_bundles(timeout=30)
        say("jwks", domains={b.trust_domain.name: len(b.jwt_authorities) for b in bundles.bundles})
    elif verb == "validate":
        say("valid", id=str(client.validate_jwt_svid(rest[1], rest[0], timeout=30).spiffe_id))


try:
    main(*sys.argv[1:])
except PySpiffeError as e:
    say_error(e)
    sys.exit(1)
