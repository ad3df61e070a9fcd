"""`emostream demo`: the pipeline of `emostream run` on a bundled clip, in a process of its own, and a view of it."""

import sys
from contextlib import suppress
from importlib.resources import as_file, files

from emostream.checkpoint.shipped import DEFAULT_MODEL
from stream.api.pipeline import Pipeline
from stream.pubsub.client import EmotionClient
from stream.serve.model import ModelConfig
from stream.view import watch

SOURCE = "demo"


def demo(model: str = DEFAULT_MODEL, *, web: bool = False) -> int:
    """Run the pipeline on the bundled clip and show it until the clip is over; returns the exit code.

    Args:
        model: Which one is shown.
        web: In a browser, for as long as the user likes, instead of the terminal.

    Raises:
        PipelineError: The pipeline failed; the message is its own.
    """
    ModelConfig(model=model).say_licence()
    with (
        as_file(files("stream").joinpath("assets", "demo.mp4")) as clip,
        Pipeline([f"--source={SOURCE}={clip}", f"--model={model}", *["--loop"] * web]) as pipeline,
    ):
        over = _show_page(pipeline) if web else _show(pipeline)
        if not over and pipeline.running:
            pipeline.close()  # interrupted
        pipeline.wait()
        for line in pipeline.said:
            print(line, file=sys.stderr)
    return 0


def _show(pipeline: Pipeline) -> bool:
    """In the terminal, until the clip is over; whether it is."""
    with EmotionClient(pipeline.endpoint) as client:
        return watch(client, until=lambda state: state.over or not pipeline.running).over


def _show_page(pipeline: Pipeline) -> bool:
    """In a browser, until the user has seen enough or the pipeline fails."""
    from stream.web.config import WebConfig
    from stream.web.serve import serving

    with serving(WebConfig(connect=pipeline.endpoint)) as link, suppress(KeyboardInterrupt):
        print(f"the demo is shown on {link}", file=sys.stderr, flush=True)
        pipeline.wait()
    return False
