import gc
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from emostream.startup import start_quickly
from tests.schedule import place, rank

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

start_quickly()

# How fast a machine makes examples is no property of what is tested.
settings.register_profile("emostream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("emostream")

ALLOWED_SKIPS = {"gpu", "hardware"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadFileScheduling | None":
    """Under `--dist loadfile`, places rather than files."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByPlace(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return place(nodeid)

    config.option.loadscopereorder = False  # as below, not by how many tests there are
    return ByPlace(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest first where several processes test, so that they end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


def pytest_collection_finish() -> None:
    """Nothing that was imported is ever garbage, and looking through it takes long."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """With EMOSTREAM_REQUIRE=1 a skip is a failure unless the test is marked `gpu` or `hardware`."""
    report = yield
    if (
        report.skipped
        and os.environ.get("EMOSTREAM_REQUIRE") == "1"
        and not ALLOWED_SKIPS & {mark.name for mark in item.iter_markers()}
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped under EMOSTREAM_REQUIRE=1: {report.longrepr}"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU on this host")
