"""Entry point of the finetune image."""

from __future__ import annotations

import os
import sys

from embedding_stages.contract import Stage
from embedding_stages.encoder.hardware import limit_library_threads
from embedding_stages.runner import run


def main() -> int:
    limit_library_threads()
    from embedding_stages.finetune.stage import work  # imports torch, which reads the limit

    return run(Stage.FINETUNE, work, os.environ)


if __name__ == "__main__":
    sys.exit(main())
