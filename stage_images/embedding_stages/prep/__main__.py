"""Entry point of the prep stage."""

from __future__ import annotations

import os
import sys

from embedding_stages.contract import Stage
from embedding_stages.prep.stage import work
from embedding_stages.runner import run

if __name__ == "__main__":
    sys.exit(run(Stage.PREP, work, os.environ))
