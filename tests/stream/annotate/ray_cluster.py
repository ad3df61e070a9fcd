"""A Ray cluster of two nodes of one core on this host's loopback, all in one process group.

Writes its address to standard output, kills the second node at the first line that it reads and says so, and ends at
the next.
"""

import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    cluster.remove_node(second, allow_graceful=False)
    sys.stdout.write("killed\n")
    sys.stdout.flush()
    sys.stdin.readline()
    cluster.shutdown()


if __name__ == "__main__":
    main()
