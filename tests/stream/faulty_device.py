"""A capture process whose device hangs in its driver, or whose reader crashes, by its one option."""

import sys
import time

from stream.capture import device
from stream.capture.device import CaptureDevice, run_device
from stream.capture.process import capture_parser, run_capture


class FaultyDevice(CaptureDevice[float]):
    def __init__(self, fault: str) -> None:
        super().__init__(name="device", modalities=("video",), lost_after_s=0.5, queued=4)
        self._fault = fault

    def _run(self) -> None:
        self._opened += 1
        self._hear()
        self._publish("video", [time.perf_counter()])
        if self._fault == "crash":
            raise RuntimeError("the reader crashed")
        with self._driver:
            time.sleep(3600)


def main() -> int:
    parser = capture_parser("tests.stream.faulty_device", "fails")
    parser.add_argument("--fault", choices=("crash", "hang", "hang-later"))
    args = parser.parse_args()
    device.STUCK_AFTER_S = 1.5 if args.fault == "hang" else 3600.0
    faulty = FaultyDevice(args.fault)

    def send_next(timeout_ms: float) -> None:
        faulty.read(timeout_ms)

    return run_capture(
        args, lambda link: run_device(link, faulty, send_next), modalities=("video",)
    )


if __name__ == "__main__":
    sys.exit(main())
