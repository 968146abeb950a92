"""What the methods that search among the blobs of inverted slices share."""

from __future__ import annotations

from flipside.methods.base.generator_pass import GeneratorMethod
from flipside.methods.base.method import Context
from flipside.methods.latent.blob_generator import BlobGenerator
from flipside.methods.latent.latents import Latents
from flipside.methods.latent.search import SearchParams


class BlobMethod(GeneratorMethod):
    """Base of these methods: the generator, the slices' blobs, and what inverting a slice took."""

    generator: BlobGenerator

    def __init__(self, params: SearchParams, context: Context):
        super().__init__(params, context)
        self.latents = Latents.open(params.needs)
        self.seconds_before = self.latents.timing["seconds_per_image"]
