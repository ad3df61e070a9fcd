"""What the errors of all packages are made of: each that a user can act on is an `EmostreamError`.

Here are those that several packages raise. One that only one module raises stands there, as
`stream.pubsub.client.ReceiveTimeout`, and those of compiled encoders in `export.errors`.

Every message says who complains, what was wanted, what was found and what to do about it. Commands print the message
alone and exit with 2; anything that is not an `EmostreamError` is a bug and keeps its traceback.
"""

from emostream.urls import hide_secrets


class EmostreamError(Exception):
    """Base of every error that a user can act on; the URLs in its message are shown without their secrets."""

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


class ConfigError(EmostreamError, ValueError):
    """A configuration value, command-line option or `config.json` entry cannot be used."""


class CheckpointError(EmostreamError):
    """A checkpoint, or a part that it refers to, cannot be loaded or saved."""


class MediaError(EmostreamError):
    """A media file or stream cannot be decoded, or has nothing that was asked for."""


class InputError(EmostreamError, ValueError):
    """An array given to the model has the wrong shape, dtype or range."""


class LinkError(EmostreamError):
    """A capture process and the inference process cannot talk to each other."""


class DeviceError(EmostreamError):
    """A camera or microphone cannot be used."""


class DeviceTimeout(DeviceError, TimeoutError):
    """A camera or microphone delivered nothing in the time that was allowed."""


class TrainingError(EmostreamError):
    """Training cannot go on: a loss, a gradient or a reward is no number."""
