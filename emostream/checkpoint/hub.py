"""The hub: which repository holds a tower, and how its files are fetched without waiting for ever."""

import urllib.error
import urllib.request
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from emostream.checkpoint.parts import folder_name

#: How long the hub may take to answer at all; its own client waits without end.
HUB_TIMEOUT_S = 10.0

#: What is fetched of a model; weights in any other format never are, nor Whisper's second copy in fp32.
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")
HUB_IGNORED = ("*fp32*",)

#: What its client raises when the hub gives nothing: a refusal, a name that is no id, no network.
HUB_ERRORS = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError)

#: Owner on the hub of each tower family, for configs that name a folder of somebody else's machine.
HUB_OWNERS = {"siglip": "google", "whisper": "openai", "bert": "google-bert"}


def is_hub_id(name: str) -> bool:
    """Whether a name reads `owner/name` and is no path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def hub_id(name: str) -> str | None:
    """Hub id of a tower: its own if it has an owner, else the owner of its family and its last component, if known."""
    if is_hub_id(name):
        return name
    base = folder_name(name)
    owner = HUB_OWNERS.get(base.split("-")[0])
    return f"{owner}/{base}" if owner else None


def fetch(repo: str, patterns: Collection[str] = HUB_PATTERNS) -> Path:
    """Local folder of a hub repository, fetched unless it is in the cache.

    Raises:
        LocalEntryNotFoundError: No network within `HUB_TIMEOUT_S`, and not in the cache.
        HfHubHTTPError: The hub refuses.
        HFValidationError: `repo` is no hub id.
    """
    return Path(
        snapshot_download(
            repo,
            allow_patterns=list(patterns),
            ignore_patterns=list(HUB_IGNORED),
            local_files_only=constants.HF_HUB_OFFLINE or not _hub_answers(),
        )
    )


def _hub_answers() -> bool:
    """False only where the network swallows packets; other failures are quick, and the hub's client names them."""
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except TimeoutError:
        return False
    except urllib.error.URLError as error:
        return not isinstance(error.reason, TimeoutError)
    except OSError:
        pass
    return True
