import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
from skimage.metrics import structural_similarity as skimage_ssim
from torchmetrics.functional.image import structural_similarity_index_measure

from invrep.evaluation import metrics
from invrep.evaluation.metrics import PairwiseDistance, psnr, ssim


def test_pairwise_distance_is_the_mean_over_all_ordered_pairs():
    codes = torch.randn(5, 3, 4)
    metric = PairwiseDistance()
    metric.update(codes[:1])
    assert math.isnan(metric.compute())
    for code in codes[1:].split(2):
        metric.update(code)
    pairs = torch.stack([(a - b).square().sum() for a in codes for b in codes])
    assert float(metric.compute()) == pytest.approx(float(pairs.mean()), rel=1e-6)


def test_psnr_and_ssim_are_of_clipped_values_and_one_per_image():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.4, (2, 1, 80, 90)), rng.normal(0, 0.2, (2, 1, 80, 90))
    b += a
    x, y = a.clip(0, 1), b.clip(0, 1)
    found = psnr(torch.tensor(a), torch.tensor(b))
    assert found.tolist() == pytest.approx([skimage_psnr(y[k], x[k], data_range=1) for k in range(2)])
    found = ssim(torch.tensor(a), torch.tensor(b))
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert found.tolist() == pytest.approx([skimage_ssim(y[k, 0], x[k, 0], **options) for k in range(2)], abs=5e-3)


def test_ssim_of_a_tiny_image_is_blank():
    assert ssim(torch.rand(2, 3, 10, 30), torch.rand(2, 3, 10, 30)).isnan().all()


@pytest.mark.parametrize("strip", [100, 1000, 2**16])
def test_ssim_in_strips_is_that_of_the_whole_image(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = torch.rand(2, 3, 67, 41, dtype=torch.float64)
    images = photos + 0.1 * torch.randn_like(photos)
    wanted = structural_similarity_index_measure(
        images.clamp(0, 1), photos, data_range=1.0, reduction="none", gaussian_kernel=True
    )
    monkeypatch.setattr(metrics, "STRIP", strip)
    torch.testing.assert_close(ssim(images, photos), wanted, rtol=1e-12, atol=0)


def test_measures_of_an_image_do_not_depend_on_its_batch() -> None:
    photos = torch.rand(5, 3, 64, 61)
    images = photos + 0.1 * torch.randn_like(photos)
    for measure in (psnr, ssim):
        alone = torch.cat([measure(images[[k]], photos[[k]]) for k in range(5)])
        assert torch.equal(measure(images, photos), alone)
