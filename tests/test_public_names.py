"""What `from emostream import …` offers: typed for users' checkers, and loaded when it is used."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import emostream

ROOT = Path(__file__).resolve().parent.parent

SNIPPET = """
from emostream import (
    AsyncEmotionClient, EmostreamError, EmotionClient, Label, Reasoning, Recognizer, Status, __version__,
    listen, load_model, recognize, save_model,
)

reveal_type(EmotionClient("tcp://127.0.0.1:5556"))
reveal_type(EmotionClient().recv_latest())
reveal_type(AsyncEmotionClient())
reveal_type(__version__)
with listen(video=0) as events:
    for event in events:
        if isinstance(event, Label):
            reveal_type(event)
            reveal_type(event.smoothed.label)
        match event:
            case Reasoning(done=True):
                reveal_type(event.think)
            case Status():
                reveal_type(event.state)
reveal_type(recognize("clip.mp4"))
model, processor = load_model("tiny")
reveal_type(Recognizer(model, processor))
reveal_type(save_model)
reveal_type(EmostreamError("why"))
EmotionClient(endpoint=5)
"""
REVEALED = [
    "stream.pubsub.client.EmotionClient",
    "stream.pubsub.messages.Label",
    "stream.pubsub.client.AsyncEmotionClient",
    "str",
    "stream.pubsub.messages.Label",
    "str",
    "str",
    "Literal['starting'] | Literal['live'] | Literal['degraded'] | Literal['lost'] | Literal['stopped']",
    "list[stream.pubsub.messages.Label | stream.pubsub.messages.Reasoning]",
    "emostream.inference.recognizer.Recognizer",
    "def (",
    "emostream.errors.EmostreamError",
]


@pytest.mark.slow
def test_a_users_type_checker_sees_every_name(tmp_path):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(snippet)], cwd=ROOT, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    revealed = [line.split('type is "')[1].rstrip('"') for line in lines if "type is" in line]
    assert len(revealed) == len(REVEALED), done.stdout + done.stderr
    for found, wanted in zip(revealed, REVEALED, strict=True):
        assert found.replace("builtins.", "").startswith(wanted)
    # The one mistake of the snippet is found, and is the only one.
    assert [line for line in lines if "error:" in line] == [
        line for line in lines if 'Argument "endpoint" to "EmotionClient"' in line
    ]
    assert done.returncode == 1


def test_names_are_loaded_when_they_are_used():
    code = """
import sys
import emostream
ours = {name.split(".")[0] for name in sys.modules}
assert not {"stream", "export", "training", "torch", "zmq", "msgspec"} & ours
from emostream import AsyncEmotionClient, EmostreamError, EmotionClient, Label, Reasoning, Status, listen
assert not {"torch", "transformers"} & set(sys.modules)
for name in emostream.__all__:
    assert getattr(emostream, name), name
assert dir(emostream) == sorted(emostream.__all__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert emostream.__version__ == version("emostream")
    with pytest.raises(AttributeError, match="no attribute 'emotion'"):
        emostream.emotion  # noqa: B018
