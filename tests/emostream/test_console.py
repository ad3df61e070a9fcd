"""Commands on consoles that cannot show every character."""

import os
import subprocess
import sys

import pytest

NARROW = ({"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"})


@pytest.mark.parametrize("encoding", NARROW, ids=lambda e: e["PYTHONIOENCODING"])
def test_what_a_console_lacks_becomes_a_question_mark(encoding):
    code = (
        "import sys; from emostream.console import write_anything; write_anything();"
        "print('a → b'); print('c → d', file=sys.stderr)"
    )
    done = run([sys.executable, "-P", "-c", code], encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"a ? b\n"
    assert done.stderr == b"c ? d\n"


@pytest.mark.parametrize("encoding", NARROW, ids=lambda e: e["PYTHONIOENCODING"])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("stream.commands.cli", ["infer", "→.mp4", "--out", "unused.jsonl"]),
        ("training.cli", ["eval", "--model", "tiny", "--manifest", "→.jsonl", "--out", "unused"]),
        ("export.cli", ["verify", "→"]),
    ],
)
def test_every_command_complains_in_what_the_console_has(module, arguments, encoding):
    done = run([sys.executable, "-P", "-X", "utf8=0", "-m", module, *arguments], encoding)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    [complaint] = [line for line in done.stderr.splitlines() if line.startswith(b"emostream")]
    assert b"?" in complaint


def run(command, encoding):
    return subprocess.run(command, env=os.environ | encoding, capture_output=True, check=False)
