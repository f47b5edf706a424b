"""rotation_readers: programs that read certificate files while they are exchanged, and judge what they saw.

A reader is a process of its own. Each prints a JSON object at its end: how many reads, how many different
certificates, and what was torn (a list of texts, empty if all was well).
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PAUSE_S = 0.002  # between reads: a reader is no load test
HOLD_S = 0.05  # for how long a directory is held, at most


def spki(public):
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fits(cert, key):
    return spki(cert.public_key()) == spki(key.public_key())


def read_at(dir_fd, name):
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    with open(fd, "rb") as f:
        return f.read()


def judge_held(directory, rng):
    """Opens the directory behind ..data, and reads its files one after the other, some time later."""
    dir_fd = os.open(directory / "..data", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        cert = x509.load_pem_x509_certificate(read_at(dir_fd, "tls.crt"))
        time.sleep(rng.random() * HOLD_S)
        key = serialization.load_pem_private_key(read_at(dir_fd, "tls.key"), None)
        combined = read_at(dir_fd, "site.pem")
        said = json.loads(read_at(dir_fd, "..set.json"))
    finally:
        os.close(dir_fd)
    if not fits(cert, key):
        return cert, "held: the key is another one's"
    if not fits(x509.load_pem_x509_certificate(combined), key):
        return cert, "held: the combined file is of another set"
    if int(said["serial"], 16) != cert.serial_number:
        return cert, "held: what the set says is of another one"
    return cert, None


def judge_combined(directory, rng):
    """One open of the plain name, read in small pieces."""
    with open(directory / "site.pem", "rb", buffering=0) as f:
        text = b""
        while piece := f.read(rng.randrange(50, 400)):
            text += piece
    cert = x509.load_pem_x509_certificate(text)
    key = serialization.load_pem_private_key(text, None)
    return cert, None if fits(cert, key) else "combined: the key is another one's"


def main():
    how, directory, seed = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    most = int(sys.argv[4])
    judge = {"held": judge_held, "combined": judge_combined}[how]
    rng = random.Random(seed)
    ends = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
    reads, serials, torn = 0, set(), []
    while not ends and (most == 0 or reads < most):
        try:
            cert, wrong = judge(directory, rng)
            serials.add(cert.serial_number)
        except Exception as e:  # whatever it is, a program would have failed
            wrong = f"{how}: {type(e).__name__}: {e}"
        reads += 1
        if wrong:
            torn.append(wrong)
        time.sleep(PAUSE_S)
    print(json.dumps({"reads": reads, "certificates": len(serials), "torn": torn[:20], "n_torn": len(torn)}))


class Reader:
    """most: end after so many reads; 0: at SIGTERM."""

    def __init__(self, how, directory, seed, most=0):
        argv = [sys.executable, __file__, how, str(directory), str(seed), str(most)]
        self.p = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def end(self, ask=True):
        if ask:
            self.p.send_signal(signal.SIGTERM)
        out, _ = self.p.communicate(timeout=60)
        assert self.p.returncode == 0, self.p.returncode
        return json.loads(out)

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.communicate()


if __name__ == "__main__":
    main()
