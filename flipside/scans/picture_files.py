"""Picture files (PNG, TIFF, JPEG …) to their stored samples: every bit kept, upright, colours for a palette's indices.

Pillow reads what has up to 8 bits per channel. It would cut 16 bits in a colour channel to 8 and take signed samples
for unsigned ones, so tifffile reads TIFF, and imagecodecs (libpng, openjpeg) deep PNG and JPEG 2000.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile

from flipside.scans.readers import DEFLATE_LIMIT, ReadError, refusing

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "WEBP", "PPM")  # Pillow's names of those that it reads without loss
PNG, JPEG2000 = b"\x89PNG\r\n\x1a\n", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 274  # the tag of EXIF and TIFF
LOSSLESS = ("NONE", "CCITTRLE", "CCITTFAX3", "CCITTFAX4", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD")
UNPACKED = LOSSLESS[4:]  # codings whose bytes can be counted without the rest of the header
DAMAGED = "Get the file again, or leave it out with extract.on_error: skip"


@dataclass(frozen=True, eq=False)
class Picture:
    """The samples of a picture as it is shown: upright, white high, without its (opaque) alpha channel."""

    samples: np.ndarray  # (R,C) grey or (R,C,3) red, green, blue; the numbers that are stored
    bits: int  # of a sample
    lossy: str = ""  # the coding that doesn't keep samples as they were, such as JPEG


def decode_picture(path: Path) -> Picture:
    """Raises ReadError for a file that is no picture, damaged, of several frames, partly transparent or in the colours
    of print."""
    with refusing(path, DAMAGED):
        with open(path, "rb") as file:
            head = file.read(32)
        if head.startswith(TIFF):
            return _decode_tiff(path)
        if head.startswith(JPEG2000):
            samples = imagecodecs.jpeg2k_decode(path.read_bytes())  # (R,C) or (R,C,channels)
            return Picture(_without_alpha(path, samples), 8 * samples.dtype.itemsize, "JPEG 2000")
        return _decode_by_pillow(path, head)


def _decode_by_pillow(path: Path, head: bytes) -> Picture:
    with Image.open(path) as picture:
        _refuse_frames(path, getattr(picture, "n_frames", 1))
        if picture.format not in FORMATS:
            raise ReadError(path, f"is a {picture.format} file, expected a PNG, TIFF, JPEG, JPEG 2000 or the like",
                            "Convert it to PNG")
        scale = _netpbm_scale(path, picture)
        if head.startswith(PNG):
            with Image.open(path) as unread:
                unread.verify()  # load() alone doesn't compare the checksums of the pixels
        picture.load()
        orientation = picture.getexif().get(ORIENTATION, 1)
        lossy = {"JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WebP"}.get(picture.format, "")
        if head.startswith(PNG):
            bits, colour = head[24], head[25]  # of the header chunk: bits per sample, kind of colour
            if bits == 16 and colour != 0:
                samples = _without_alpha(path, imagecodecs.png_decode(path.read_bytes()))
                if "transparency" in picture.info and (samples == picture.info["transparency"]).all(axis=-1).any():
                    raise _transparent(path)
                return Picture(turn_upright(samples, orientation), 16)
            scale = 255 // (2**bits - 1) if colour == 0 and bits in (2, 4) else 1  # Pillow spreads these over 8 bits
        else:
            bits = 1 if picture.mode == "1" else 8
        samples = _pillow_samples(path, picture)
        if scale != 1:
            samples = np.rint(samples / scale).astype(samples.dtype)
        bits = max(bits, 8 * samples.dtype.itemsize) if samples.dtype.itemsize > 1 or samples.ndim == 3 else bits
        return Picture(turn_upright(samples, orientation), bits, lossy)


def _pillow_samples(path: Path, picture: Image.Image) -> np.ndarray:
    """(R,C) or (R,C,3) of a loaded picture, a palette's colours for its indices."""
    if picture.has_transparency_data:
        rgba = picture if picture.mode in ("RGBA", "LA") else picture.convert("RGBA")
        if np.asarray(rgba.getchannel("A")).min() < 255:
            raise _transparent(path)
    if picture.mode in ("P", "PA", "RGBA"):
        picture = picture.convert("RGB")
    elif picture.mode == "LA":
        picture = picture.getchannel("L")
    if picture.mode not in ("1", "L", "I", "F", "RGB") and not picture.mode.startswith("I;16"):
        raise ReadError(path, f"is in the colours {picture.mode}, expected grey or RGB", "Save it as a grey or RGB PNG")
    samples = np.asarray(picture)
    return samples.astype(np.uint8) if samples.dtype == bool else samples


def _netpbm_scale(path: Path, picture: Image.Image) -> float:
    """What Pillow multiplies the samples of a PGM or PPM file by, to spread them over 8 or 16 bits."""
    if not isinstance(picture, PpmImageFile) or picture.mode in ("1", "F"):
        return 1
    tile = picture.tile[0]
    if not tile.codec_name.startswith("ppm") or not isinstance(tile.args, tuple):
        return 1  # the samples as they stand
    highest = tile.args[-1]
    if highest > 255 and picture.mode == "RGB":
        raise ReadError(path, "is a PPM file of 16 bits per channel", "Convert it to PNG or TIFF")
    return (65535 if picture.mode.startswith("I") else 255) / highest


def _decode_tiff(path: Path) -> Picture:
    with tifffile.TiffFile(path) as file:
        pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage) and not page.is_reduced]
        images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
        _refuse_frames(path, max(len(pages), images))
        page = pages[0]
        _refuse_missing_data(path, page)
        samples = page.asarray()  # (R,C), (R,C,channels) or, planar, (channels,R,C)
        if sorted(page.axes) not in (["X", "Y"], ["S", "X", "Y"]):
            raise ReadError(path, f"has the axes {page.axes}, expected one picture", "Save each plane as its own file")
        if page.axes.startswith("S"):
            samples = np.moveaxis(samples, 0, -1)
        orientation = page.tags.valueof(ORIENTATION, 1)
        lossy = "" if _name(page.compression) in LOSSLESS else _name(page.compression)
        bits = page.bitspersample
        samples, bits = _shown(path, page, samples, bits)
    return Picture(turn_upright(samples, orientation), bits, lossy)


def _shown(path: Path, page: tifffile.TiffPage, samples: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Grey or RGB samples of a TIFF page by its photometric interpretation, and their bits."""
    kind = _name(page.photometric)
    if samples.dtype.kind not in "buif":
        raise ReadError(path, f"holds {samples.dtype} samples", "Save it with whole or floating-point grey values")
    colour = kind == "RGB" or (kind == "YCBCR" and "JPEG" in _name(page.compression))  # whose decoder makes RGB of it
    if not colour and kind not in ("MINISBLACK", "MINISWHITE", "PALETTE"):
        raise ReadError(path, f"is in the colours {kind}, expected grey or RGB", "Save it as a grey or RGB picture")
    grey = _without_alpha(path, samples.astype(np.uint8) if samples.dtype == bool else samples)
    if (grey.ndim == 3) != colour:
        raise ReadError(path, f"has {page.samplesperpixel} channels, but the colours {kind}", DAMAGED)
    if kind == "MINISWHITE":
        if grey.dtype.kind != "u":
            raise ReadError(path, f"is white at zero with {grey.dtype} samples, which no standard defines",
                            "Save it with black at zero (PhotometricInterpretation 1)")
        return np.asarray((2**bits - 1) - grey, grey.dtype), bits
    if kind == "PALETTE":
        colours = np.asarray(page.colormap)  # (3,2**bits) of 16 bits
        for step in (257, 256, 1):  # 8-bit colours are written as v * 257, by some programs as v * 256 or as they are
            if not (colours % step).any() and (colours // step).max() <= 255:
                colours, bits = (colours // step).astype(np.uint8), 8
                break
        else:
            bits = 16
        return np.moveaxis(colours[:, grey], 0, -1), bits
    return grey, bits


def _name(number: int) -> str:
    """TIFF's word for one of its codes; tifffile leaves those that it doesn't know as numbers."""
    return getattr(number, "name", str(number))


def _refuse_missing_data(path: Path, page: tifffile.TiffPage) -> None:
    """tifffile fills strips that are not there with zeros."""
    size, counts = path.stat().st_size, page.databytecounts
    ends = [offset + count for offset, count in zip(page.dataoffsets, counts, strict=True)]
    if not ends or min(counts) == 0 or max(ends) > size or page.nbytes > size * DEFLATE_LIMIT:
        raise ReadError(path, f"can't be decoded: its {size} bytes lack some of the pixels in its header", DAMAGED)
    if _name(page.compression) == "NONE" and sum(counts) * 8 < page.size * page.bitspersample:
        raise ReadError(path, f"can't be decoded: {sum(counts)} bytes of pixels are too few for {page.shape}", DAMAGED)
    packed = _name(page.compression) in UNPACKED and not page.is_tiled
    if packed and _unpacked_size(path, page) * 8 < page.size * page.bitspersample:
        raise ReadError(path, f"can't be decoded: its strips are too short for {page.shape}", DAMAGED)


def _unpacked_size(path: Path, page: tifffile.TiffPage) -> int:
    """Bytes that the strips of a page hold."""
    unpack, size = tifffile.TIFF.DECOMPRESSORS[page.compression], 0
    with open(path, "rb") as file:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            size += len(unpack(file.read(count)))
    return size


def _without_alpha(path: Path, samples: np.ndarray) -> np.ndarray:
    """(R,C) or (R,C,1 to 4) -> (R,C) or (R,C,3). Raises ReadError where a channel beyond grey or RGB isn't opaque."""
    if samples.ndim == 2:
        return samples
    channels = samples.shape[2]
    colours = 3 if channels >= 3 else 1
    highest = 1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
    if (samples[..., colours:] != highest).any():
        raise _transparent(path)
    return samples[..., :3] if colours == 3 else samples[..., 0]


def _transparent(path: Path) -> ReadError:
    return ReadError(path, "is partly transparent", "Save it without an alpha channel")


def _refuse_frames(path: Path, frames: int) -> None:
    if frames != 1:
        raise ReadError(path, f"has {frames} frames, expected one", "Save each frame as its own file")


def turn_upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """(R,C) or (R,C,3) as it is to be shown by the orientation of EXIF or TIFF, 1 to 8; any other means none."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
