"""A real single-node Kubernetes on a bare Linux machine: `python3 hack/localkube --help`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one reads this, and no syntax error
    sys.exit("this needs Python 3.11 or newer, found " + sys.version.split()[0])

from cli import main

sys.exit(main())
