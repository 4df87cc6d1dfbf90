"""Entry point of the sdg stage."""

from __future__ import annotations

import os
import sys

from embedding_stages.contract import Stage
from embedding_stages.runner import run
from embedding_stages.sdg.stage import work

if __name__ == "__main__":
    sys.exit(run(Stage.SDG, work, os.environ))
