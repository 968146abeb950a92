"""Small slices with a bright blob in every other one, a classifier that sees it, and short trainings on them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from flipside.classifiers.networks.view import View, maps_by_size
from flipside.core.checkpoint import Scratch
from flipside.core.runtime import Runtime, RuntimeParams, generator_for
from flipside.generators.base.data import Batch, TrainingSlices
from flipside.generators.nn.losses import PUBLISHED_LESION

LESION = PUBLISHED_LESION  # of which the published weights of L1 losses hold as they are

COUNT, SIZE = 32, 16
NETWORKS = {
    "channels": [8, 16], "discriminator_channels": [8, 16], "discriminator_last_block": False, "skips": 1,
    "upsampling": "nearest", "spectral_norm": False, "spectral_sigma": "differentiable",
}
TRAINING = {
    "generator_every": 2, "learning_rate": "2e-3", "schedule": "constant", "betas": [0.0, 0.9], "batch_size": 8,
    "steps": 12, "balance": "none", "ema_decay": 0.0, "seed_offset": 0,
}
COIN = NETWORKS | TRAINING | {
    "fuse": "clamp", "adversarial_loss": "bce", "discriminator_condition": "predicted", "kl": "logits",
    "kl_target": "own_if_healthy", "cycle_target": "input", "lambda_adversarial": 0.1, "lambda_classifier": 1.0,
    "lambda_reconstruction": 3.0, "lambda_total_variation": 0.0001, "total_variation_scale": 127.5,
}
SINGLA = NETWORKS | TRAINING | {
    "fuse": "clamp", "bins": 2, "target": "opposite", "projection": "nominal", "adversarial_loss": "bce",
    "kl": "logits", "reconstruction": "l1", "lambda_adversarial": 0.1, "lambda_classifier": 1.0,
    "lambda_reconstruction": 3.0, "lambda_cycle": 3.0, "lambda_total_variation": 0.0, "total_variation_scale": 127.5,
}
BLOBGAN = TRAINING | {
    "generator_every": 1, "blobs": 4, "blob_area": 0.02, "latent": 8, "layout_width": 16, "layout_layers": 3,
    "feat": 6, "style": 5, "size_in": 4, "channels": [12, 8, 8], "discriminator_channels": [8, 16, 16],
    "encoder_channels": [8, 16, 16],
    "training": "joint", "sampled_every": 2, "lambda_adversarial": 0.1,
    "real": {"perceptual": 1.0, "pixel": 5.0, "decision": 0.1},
    "pixel_loss": "l1", "lambda_latent": 1.0, "r1_weight": 2.0, "r1_every": 4, "halve_every": 5, "epsilon": 1e-5,
}
STYLEGAN = TRAINING | {
    "generator_every": 1, "latent": 8, "width": 12, "mapping_layers": 2, "size_in": 4, "channels": [12, 8, 8],
    "discriminator_channels": [8, 16, 16], "encoder_channels": [8, 16, 16], "sampled_every": 2, "mixing": 0.9,
    "lambda_adversarial": 0.1, "lambda_perceptual": 1.0, "lambda_pixel": 5.0, "lambda_classifier": 1.0,
    "lambda_code": 0.2, "path_length_weight": 2.0, "path_length_every": 4, "r1_weight": 2.0, "r1_every": 4,
    "halve_every": 5, "epsilon": 1e-8,
}
ENCODER = {
    "pretrain": {"steps": 6, "learning_rate": 2e-3, "halve_every": 4, "batch_size": 4},
    "finetune": {"steps": 6, "learning_rate": 1e-3, "halve_every": 4, "batch_size": 4},
    "real": {"perceptual": 1.0, "pixel": 5.0, "decision": 0.1},
    "generated": {"perceptual": 0.5, "pixel": 1.0, "decision": 0.2}, "lambda_latent": 2.0, "pixel_loss": "l2",
    "truncation": 0.0, "seed_offset": 0,
}
ALIGNED = COIN | {
    "fuse": "tanh", "alignment": "tanh", "classifier_sees": "input_range", "data": "paired", "height_bins": 4,
    "discriminator_condition": "none", "adversarial_loss": "relativistic", "gamma": 1.0, "penalty_share": 0.5,
    "classifier_features": True, "feature_scale": "one", "kl_target": "always_healthy", "reconstruction": "dilated",
    "dilation_px": 3, "lambda_reconstruction": 0.0, "lambda_total_variation": 0.001,
}

IMPACT = {
    "channels": [8, 16], "hole_size": 2, "max_holes": 8, "learning_rate": "1e-2", "steps": 20,
    "fine_tuning_learning_rate": "1e-3", "fine_tuning_steps": 5, "batch_size": 8, "perceptual_features": "none",
    "lambda_valid": 1.0, "lambda_hole": 6.0, "lambda_perceptual": 0.05, "lambda_style": 120.0,
    "lambda_total_variation": 0.1, "seed_offset": 0,
}

CX_GAN = TRAINING | {
    "variant": "integrated", "channels": [8, 16], "discriminator_channels": [8, 16], "fuse": "clamp", "replay": 5,
    "lambda_adversarial": 1.0, "lambda_cycle": 10.0, "lambda_identity": 1.0, "lambda_map": 0.0,
    "lambda_map_adversarial": 50.0, "lambda_map_distance": 100.0, "betas": [0.5, 0.999], "balance": "none",
    "augmentation": [],
}

VA_GAN = TRAINING | {
    "channels": [8, 16], "discriminator_channels": [8, 16], "fuse": "clamp", "lambda_map": 0.05,
    "lambda_gradient_penalty": 10.0, "augmentation": [],
}


FLIP_MASK = TRAINING | {
    "generator_every": 1, "channels": [8, 16], "discriminator_channels": [8, 16], "augmentation": [], "height_bins": 4,
    "margin": 2.0, "lambda_classifier": 1.0, "lambda_paste": 1.0, "lambda_adversarial": 0.5,
    "lambda_area": 0.0027, "healthy_area": 2.0, "lambda_undecided": 0.00027, "lambda_total_variation": 0.00073,
    "lambda_identity": 1.0, "ramp": 0.25, "r1_gamma": 1.0, "r1_every": 4,
}


class Patches(torch.nn.Module):
    def forward(self, images):
        return F.avg_pool2d(images, 3, 1)  # (B,1,H-2,W-2)


class BlobClassifier(torch.nn.Module):
    """Abnormal where the brightest 3 x 3 patch is bright; its penultimate features: that, and the mean."""

    def __init__(self, image_channels=1):
        super().__init__()
        self.image_channels = image_channels
        self.trunk = Patches()

    def features(self, images):
        return self.trunk(images)

    def head(self, features):
        return self.pooled(features) @ self.classifying_weights() - 8

    def pooled(self, features):
        return torch.stack([features.amax(dim=(1, 2, 3)), features.mean(dim=(1, 2, 3))], dim=1)  # (B,2)

    def classifying_weights(self):
        return torch.tensor([20.0, 0.0])

    def view(self, images):
        maps = maps_by_size(self.trunk, images)
        return View(maps, self.pooled(maps[-1]), self.head(maps[-1]))

    def penultimate(self, images):
        return self.pooled(self.features(images))

    feature_count, has_maps = 2, True

    def forward(self, images):
        return self.head(self.features(images))


def slices():
    """Images (COUNT,SIZE,SIZE); those of even number have a blob."""
    images = torch.rand(COUNT, SIZE, SIZE, generator=generator_for(1)) * 0.2 - 0.3
    for i in range(0, COUNT, 2):
        images[i, 4:8, (i % 10):(i % 10) + 4] = 0.9
    return images


def toy_data(classifier=None):
    """The slices with their labels, heights from 0 to 1, and an organ in the upper half."""
    organ = torch.zeros(COUNT, SIZE, SIZE, dtype=torch.uint8)
    organ[:, : SIZE // 2] = 1
    return TrainingSlices(slices(), organ, torch.arange(COUNT) % 2 == 0, torch.linspace(0, 1, COUNT),
                          classifier or BlobClassifier(),
                          Runtime(RuntimeParams(device="cpu", precision="float32", threads=1)))


def batch_of(images, logits=0.0, kind=Batch, **more):
    """A batch of images (B,1,H,W) of which the classifier says `logits`; the organ is the upper half."""
    organ = torch.zeros_like(images, dtype=torch.bool)
    organ[:, :, : images.shape[2] // 2] = True
    return kind(images, torch.zeros(len(images)) + logits, organ, torch.zeros(len(images)), **more)


def in_eval(kind, params):
    """A generator from a fixed start, before any training, its networks in eval mode."""
    torch.manual_seed(0)
    gan = kind(params, BlobClassifier(), LESION)
    gan.network.eval()
    gan.discriminator.eval()
    return gan


def train(kind, params, scratch="s"):
    """The network of a generator that was trained on the toy slices from a fixed start, and its learning curves."""
    torch.manual_seed(0)
    data = toy_data()
    return kind(params, data.classifier, LESION).train(data, 3, Scratch(scratch, params.model_dump()))[:2]
