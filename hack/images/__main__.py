"""The project's container images on a machine without a registry: `python3 hack/images --help`."""

import sys

from command import main

sys.exit(main())
