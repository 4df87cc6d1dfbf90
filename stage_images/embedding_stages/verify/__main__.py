"""Entry point of the verify Job, which runs in the evaluate image."""

from __future__ import annotations

import os
import sys

from embedding_stages.contract import Stage
from embedding_stages.runner import run
from embedding_stages.verify.stage import work

if __name__ == "__main__":
    sys.exit(run(Stage.VERIFY, work, os.environ))
