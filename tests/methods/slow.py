"""Slow references that several tests compare with."""

import numpy as np
import torch


def interpolated(maps, size):
    """Maps (B,h,w) -> (B,size,size), pixel by pixel with numpy."""
    result = np.empty((len(maps), size, size))
    for index, small in enumerate(maps.numpy()):
        places = (np.arange(size) + 0.5) * len(small) / size - 0.5
        across = np.stack([np.interp(places, np.arange(small.shape[1]), line) for line in small])
        result[index] = np.stack([np.interp(places, np.arange(len(small)), column) for column in across.T], axis=1)
    return torch.tensor(result).float()
