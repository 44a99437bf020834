"""The sample is uniform, of bounded size, and a function of the set of photos alone."""

from itertools import pairwise

import numpy as np

from invrep.fitting.sample import Sample

Photos = dict[str, np.ndarray]


def stream(number: int, rows: int = 300) -> Photos:
    generator = np.random.default_rng(0)
    return {f"{k:04x}": generator.normal(size=(rows + k, 4)).astype(np.float32) for k in range(number)}


def fill(sample: Sample, photos: Photos) -> Sample:
    for content, rows in photos.items():
        chosen, numbers = sample.draw(content, len(rows))
        sample.add(rows[chosen], numbers, len(rows))
    return sample


def test_the_order_of_the_photos_does_not_matter():
    photos = stream(40)
    there = fill(Sample(500, 0), photos)
    back = fill(Sample(500, 0), dict(reversed(photos.items())))
    assert len(there) == 500
    assert there.seen == back.seen == sum(map(len, photos.values()))
    np.testing.assert_array_equal(there.rows(), back.rows())
    assert not np.array_equal(there.rows(), fill(Sample(500, 1), photos).rows())


def test_an_interruption_does_not_matter():
    photos = stream(40)
    whole = fill(Sample(500, 3), photos).rows()
    items = list(photos.items())
    for cuts in ([0, 1, 40], [0, 2, 17, 39, 40]):  # the budget is reached by the second photo
        state = Sample(500, 3).state()
        for begin, end in pairwise(cuts):
            sample = Sample(500, 3)
            sample.restore(state)
            state = fill(sample, dict(items[begin:end])).state()
        np.testing.assert_array_equal(sample.rows(), whole)


def test_every_descriptor_is_kept_with_one_probability():
    photos = {f"{k}": np.full((rows, 1), k, np.float32) for k, rows in enumerate((10_000, 30_000, 60_000))}
    kept = np.mean([np.bincount(fill(Sample(1000, s), photos).rows()[:, 0].astype(int)) for s in range(20)], axis=0)
    np.testing.assert_allclose(kept, [100, 300, 600], atol=10)  # standard deviation of the means: at most 3.5


def test_all_are_kept_below_the_budget():
    photos = stream(2)
    rows = fill(Sample(10_000, 0), photos).rows()
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(np.concatenate([*photos.values()]), axis=0))
