import os

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine makes examples is no property of what is tested.
settings.register_profile("emostream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("emostream")

ALLOWED_SKIPS = {"gpu", "hardware"}


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
