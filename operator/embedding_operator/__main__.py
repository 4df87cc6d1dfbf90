"""Start the operator: `python3 -m embedding_operator`."""

from __future__ import annotations

import os
import sys

import kopf

from embedding_operator import journal
from embedding_operator.cluster.client import KubeCluster
from embedding_operator.cluster.logs import THREADS
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.handlers import Doorbell, register
from embedding_operator.settings import Settings
from embedding_operator.watches import NoMemories


def main() -> int:
    """Run until SIGTERM; exit code 2 for a wrong configuration."""
    try:
        settings = Settings.from_env(os.environ)
    except ValueError as error:
        print(f"configuration: {error}", file=sys.stderr)
        return 2
    journal.configure(settings.log_level, settings.log_format)
    os.environ.setdefault("LOGNAME", "embedding-operator")  # Kopf asks for the user's name; the image's has none
    registry = kopf.OperatorRegistry()
    tenure = Tenure() if settings.election is not None else Tenure.without_end()
    cluster = KubeCluster.connect(connections=settings.concurrency + THREADS + 5, tenure=tenure)
    register(registry, Doorbell(settings, cluster, leases=cluster, tenure=tenure))
    kopf.run(
        registry=registry,
        memories=NoMemories(),
        standalone=True,
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
