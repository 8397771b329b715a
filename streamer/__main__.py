"""``python -m streamer`` is ``quake-streamer``."""

import sys

from streamer.cli import main

sys.exit(main())
