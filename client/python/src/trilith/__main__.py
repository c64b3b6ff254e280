"""`python -m trilith`."""

import sys

from trilith.cli import main

sys.exit(main())
