"""Republish rolling labels as ROS 2 strings: python ros2_expression.py [tcp://HOST:PORT]. Needs rclpy and pyzmq only.

Each message on /humans/expression/SOURCE is JSON with the fields of hri_msgs/Expression: header.stamp, expression,
confidence. Where hri_msgs is installed, fill its message instead.
"""

import json
import sys

import rclpy
import zmq
from std_msgs.msg import String

#: Words of hri_msgs/Expression that differ from ours.
WORDS = {"surprise": "surprised", "disgust": "disgusted", "fear": "scared"}


def main() -> None:
    """Publish until Ctrl-C."""
    rclpy.init()
    node = rclpy.create_node("emostream")
    publishers = {}
    socket = zmq.Context().socket(zmq.SUB)
    socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5556")
    socket.subscribe("emotion.")
    try:
        while rclpy.ok():
            _, payload = socket.recv_multipart()
            event = json.loads(payload)
            if not event["topic"].endswith(".label") or event["version"] != 1:
                continue
            source = event["source"].replace("-", "_")  # not allowed in ROS names
            if source not in publishers:
                publishers[source] = node.create_publisher(
                    String, f"/humans/expression/{source}", 10
                )
            label = event["smoothed"]["label"]
            captured_s = event["unix_time_s"] or event["published_s"]
            stamp = {"sec": int(captured_s), "nanosec": int(captured_s % 1 * 1e9)}
            fields = {
                "header": {"stamp": stamp, "frame_id": source},
                "expression": WORDS.get(label, label),
                "confidence": event["smoothed"]["scores"][label],
            }
            publishers[source].publish(String(data=json.dumps(fields)))
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()


if __name__ == "__main__":
    main()
