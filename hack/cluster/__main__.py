"""A cluster for the quickstart and the tests: `python3 hack/cluster` says what it can do."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one reads this, and no syntax error
    sys.exit("this needs Python 3.11 or newer, found " + sys.version.split()[0])

from command import main

sys.exit(main())
