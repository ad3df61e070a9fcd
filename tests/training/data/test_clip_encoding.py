"""The order and the batches in which clips go through threads and towers."""

import torch

from training.data.clip_encoding import computed_ahead, run_by_shape


def test_results_keep_their_order_and_no_more_than_so_many_are_begun_ahead():
    taken = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    results = computed_ahead(lambda number: number**2, items(), threads=3, ahead=2)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert list(results) == [number**2 for number in range(1, 10)]


def test_a_network_runs_once_for_each_shape():
    batches = []

    def double(batch):
        batches.append(tuple(batch.shape))
        return 2 * batch

    values = [torch.ones(2), None, torch.ones(3), 5 * torch.ones(2)]
    found = run_by_shape(double, values)
    assert batches == [(2, 2), (1, 3)]
    assert found[1] is None
    for value, result in zip(values, found, strict=True):
        assert value is None or torch.equal(result, 2 * value)
