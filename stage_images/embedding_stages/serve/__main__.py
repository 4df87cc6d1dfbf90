"""Entry point of the serve image."""

from __future__ import annotations

import asyncio
import os
import sys

from embedding_stages.encoder.hardware import usable_cpus
from embedding_stages.serve.server import serve
from embedding_stages.serve.settings import ServerSettings

if __name__ == "__main__":
    # A thread that launches kernels gives up the interpreter after 5 ms by default: as long as a short answer takes.
    sys.setswitchinterval(0.0005)
    os.environ.setdefault("RAYON_NUM_THREADS", str(usable_cpus()))  # the tokenizer's threads
    sys.exit(asyncio.run(serve(ServerSettings.of(os.environ))))
