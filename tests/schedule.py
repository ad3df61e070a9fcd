"""Which tests one process runs one after the other, and which begin first, where several processes test.

A file's tests stay together, as they share what the file makes; so do those of the folders below.
"""

FOLDERS = ("tests/export/tensorrt/", "tests/export/", "tests/stream/web/")

LONGEST_FIRST = (
    "tests/stream/serve/test_faults.py",
    "tests/test_documented_commands.py",
    "tests/stream/serve/test_run.py",
    "tests/export/",
    "tests/export/tensorrt/",
    "tests/stream/annotate/test_annotate.py",
    "tests/training/sft/test_distributed.py",
    "tests/training/grpo/test_distributed.py",
    "tests/training/faithful/test_run.py",
    "tests/stream/capture/test_live_devices.py",
    "tests/stream/api/test_listen.py",
    "tests/stream/web/",
    "tests/stream/annotate/test_cluster.py",
    "tests/training/recipe/test_people.py",
    "tests/stream/commands/test_demo.py",
    "tests/training/sft/test_sft.py",
    "tests/stream/pubsub/test_preview.py",
    "tests/stream/serve/test_people.py",
    "tests/stream/api/test_recognize.py",
    "tests/test_public_names.py",
    "tests/emostream/test_console.py",
)
"""Each takes a quarter of a minute or more; begun last, one of them would keep a single process busy at the end."""


def place(nodeid: str) -> str:
    """What a test stays together with: a folder of `FOLDERS`, or its file."""
    return next((folder for folder in FOLDERS if nodeid.startswith(folder)), nodeid.split("::")[0])


def rank(nodeid: str) -> int:
    """Where a test stands among those that begin first; all others come after them."""
    at = place(nodeid)
    return LONGEST_FIRST.index(at) if at in LONGEST_FIRST else len(LONGEST_FIRST)
