"""Entry point of the evaluate image."""

from __future__ import annotations

import os
import sys

from embedding_stages.contract import Stage
from embedding_stages.evaluate.stage import work
from embedding_stages.runner import run

if __name__ == "__main__":
    sys.exit(run(Stage.EVAL, work, os.environ))
