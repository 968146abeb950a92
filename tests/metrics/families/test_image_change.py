import numpy as np
import pytest
from scipy import ndimage

from flipside.metrics.families.image_change import change


def ssim_by_definition(x, y):
    """Equation 13 of Wang et al. (2004), averaged where the 11x11 window fits."""
    def blur(image):
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return values[5:-5, 5:-5].mean()


def test_change_is_measured_on_the_scale_0_to_1():
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (3, 20, 24)).astype(np.float16)
    others = np.clip(images + generator.normal(0, 0.3, images.shape), -1, 1).astype(np.float16)
    others[2] = images[2]
    l1, ssim = change(images, others)
    x, y = (images.astype(float) + 1) / 2, (others.astype(float) + 1) / 2
    np.testing.assert_allclose(l1, [np.abs(a - b).mean() for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(ssim, [ssim_by_definition(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-9)
    assert l1[2] == 0 and ssim[2] == pytest.approx(1)
    assert change(-np.ones((1, 16, 16)), np.ones((1, 16, 16)))[0][0] == 1
