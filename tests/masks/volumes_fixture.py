"""What leaves a volume's mask as its slices have it."""

from flipside.masks.volumes import VolumeParams

AS_IT_IS = VolumeParams(vote_slices=1, fill_holes=False, components="all", least_mm3=0)
