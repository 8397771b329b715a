"""``python -m quake.schema > docs/reference/alert.schema.json``: the alert's JSON Schema, as it is checked in."""

from __future__ import annotations

import json
import sys

from quake.alerts import Alert


def schema() -> str:
    """The text of the file; its last character is a line feed."""
    described = Alert.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **described}, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
