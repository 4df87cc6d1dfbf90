"""A real single-node Kubernetes on a bare Linux machine: `python3 hack/localkube --help`."""

import sys

from cli import main

sys.exit(main())
