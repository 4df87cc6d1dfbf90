"""Whether something on this machine answers."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

LOOPBACK = "127.0.0.1"


def answers(port: int, path: str, *, tls: bool = False, host: str = LOOPBACK) -> bool:
    """Whether a health page of this machine says 200."""
    connection: http.client.HTTPConnection
    if tls:
        # The page proves life, not identity: these components sign their own certificates.
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
