"""Stands for the cluster's DNS in the operator's process, where there is none: model servers' Services lead to one
stand-in. Python imports this file by its name at the start, because bench/scale puts this folder on the path.
"""

import os
import socket
from typing import Any

_PORT = 8000  # of the Services of model servers
_stand_in, _, _port = os.environ.get("BENCH_MODEL_SERVER", "").partition(":")
_resolve = socket.getaddrinfo


def _getaddrinfo(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
    if _stand_in and port == _PORT:
        host, port = _stand_in, int(_port)
    return _resolve(host, port, *arguments, **named)


socket.getaddrinfo = _getaddrinfo

if _holdings := os.environ.get("BENCH_HOLDINGS", ""):
    import holdings

    holdings.tell(_holdings)
