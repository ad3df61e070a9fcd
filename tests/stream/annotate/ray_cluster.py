"""A Ray cluster of two nodes of one core on this host's loopback, all in one process group.

Writes its address to standard output. At the line `wait`, it says `idle` once no actor holds a core; at `kill`, it
kills the second node and says `killed`.
"""

import sys
import time

import ray
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    _say(cluster.address)
    for line in sys.stdin:
        if line == "wait\n":
            while ray.available_resources().get("CPU") != 2:
                time.sleep(0.1)
            _say("idle")
        elif line == "kill\n":
            cluster.remove_node(second, allow_graceful=False)
            _say("killed")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
