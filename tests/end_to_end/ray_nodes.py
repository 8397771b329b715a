"""A Ray cluster whose nodes are processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
STARTS = 4


@contextmanager
def nodes(patch: pytest.MonkeyPatch, *more: dict[str, int]) -> Iterator[Any]:
    """One for each of ``more``, beside a first one that has no processor to give, so that any that works may end."""
    from ray.cluster_utils import Cluster

    tests = Path(__file__).parents[1]
    patch.setenv("PYTHONPATH", f"{tests.parent}:{tests}")  # made_jobs.py, for its processes
    with TemporaryDirectory(
        dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # a socket's path has 107 characters at most
        patch.setenv("RAY_TMPDIR", folder)
        made = started(lambda: Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0}))
        for one in more:
            started(lambda one=one: made.add_node(**{**NODE, **one}))
        yield made
        made.shutdown()


def started(make: Callable[[], Any]) -> Any:
    """A node that is not there after half a minute is given up by Ray: on a busy machine that is too soon."""
    for _ in range(STARTS - 1):
        try:
            return make()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return make()


def lose(cluster: Any, worker: int) -> None:
    """The node of a process of Ray's, as when the power fails."""
    (node,) = (n for n in cluster.worker_nodes if raylet(n) == parent(worker))
    cluster.remove_node(node, allow_graceful=False)


def raylet(node: Any) -> int:
    (info,) = node.all_processes["raylet"]
    return int(info.process.pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
