"""Pictures for whoever asks: the newest grid frame of a source as JPEG, only while somebody subscribes to it by name.

Multipart `[preview.<source>, header, jpeg]`, the header JSON: `version`, `source`, `timestamp_s` (source clock),
`width`, `height`. A subscription to everything does not ask for pictures of a face, `preview.` or a longer prefix does;
while somebody asks, subscribers to everything receive them too, as ZeroMQ has it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stream.pubsub.messages import VERSION, check_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREVIEW_PREFIX = "preview."
MAX_WIDTH = 320
JPEG_QUALITY = 80


def encode_preview(source: str, timestamp_s: float, rgb: NDArray[np.uint8]) -> list[bytes]:
    """Message of one picture.

    Args:
        source: Source name.
        timestamp_s: When it was captured, source clock.
        rgb: (H, W, 3) uint8 RGB; made smaller if it is wider than `MAX_WIDTH`.
    """
    import cv2

    height, width = rgb.shape[:2]
    if width > MAX_WIDTH:
        height, width = max(1, round(height * MAX_WIDTH / width)), MAX_WIDTH
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    header = {
        "version": VERSION,
        "source": check_source(source),
        "timestamp_s": timestamp_s,
        "width": width,
        "height": height,
    }
    return [f"{PREVIEW_PREFIX}{source}".encode(), json.dumps(header).encode(), jpeg.tobytes()]
