"""Pictures of every depth, mode and format hold the samples that a second reader finds.

The second reader is pypng for PNG, libtiff for TIFF, and Pillow for JPEG and for which side is up.
"""

import itertools

import imagecodecs
import numpy as np
import png
import pytest
import tifffile
from PIL import Image, ImageOps

from flipside.scans.picture_files import decode_picture
from flipside.scans.pictures import luma, read_image, read_image_channels
from flipside.scans.readers import ReadError

ROWS, COLUMNS = 13, 9
RNG = np.random.default_rng(0)
# (bits, channels, interlaced): every kind that PNG has without a palette
PNGS = [(*kind, interlaced) for interlaced in (False, True)
        for kind in [*((bits, 1) for bits in (1, 2, 4, 8, 16)), *itertools.product((8, 16), (2, 3, 4))]]
TIFFS = list(itertools.product(("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"), (1, 3, 4), ("contig", "separate"),
                               (None, "zlib", "lzw", "packbits"), "<>"))
WHITE = list(itertools.product((1, 8, 16, 32), (None, "zlib"), "<>"))
ORIENTED = list(itertools.product((".png", ".jpg", ".tif"), range(1, 9)))


def samples_of(dtype, channels=1):
    """(R,C) or (R,C,channels) random numbers over the whole range of a type, its ends included."""
    shape = (ROWS, COLUMNS) if channels == 1 else (ROWS, COLUMNS, channels)
    if np.dtype(dtype).kind == "f":
        return RNG.normal(0, 1e4, shape).astype(dtype)
    ends = np.iinfo(dtype)
    values = RNG.integers(ends.min, ends.max, shape, np.int64, endpoint=True)
    values.flat[:2] = ends.min, ends.max
    return values.astype(dtype)


def write_png(path, values, bits, **options):
    """(R,C) or (R,C,2 to 4) by pypng."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    greyscale = {} if "palette" in options else {"greyscale": channels < 3, "alpha": channels in (2, 4)}
    writer = png.Writer(values.shape[1], values.shape[0], bitdepth=bits, **greyscale, **options)
    with open(path, "wb") as file:
        writer.write(file, values.reshape(len(values), -1).tolist())


def by_pypng(path):
    """(R,C,channels) as pypng reads it: without an alpha channel, a palette as RGB."""
    width, height, rows, info = png.Reader(filename=str(path)).asDirect()
    values = np.array([list(row) for row in rows]).reshape(height, width, info["planes"])
    return values[..., :-1] if info["alpha"] else values


@pytest.mark.parametrize(("bits", "channels", "interlaced"), PNGS)
def test_png(tmp_path, bits, channels, interlaced):
    values = RNG.integers(0, 2**bits, (ROWS, COLUMNS) if channels == 1 else (ROWS, COLUMNS, channels))
    if channels in (2, 4):
        values[..., -1] = 2**bits - 1  # opaque
    write_png(tmp_path / "a.png", values, bits, interlace=interlaced)
    found = decode_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(np.atleast_3d(found.samples), by_pypng(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.atleast_3d(found.samples), np.atleast_3d(values)[..., :3 if channels > 2 else 1])
    assert found.bits == bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_png(tmp_path, bits):
    palette = [tuple(map(int, colour)) for colour in RNG.integers(0, 256, (2**bits, 3))]
    write_png(tmp_path / "a.png", RNG.integers(0, 2**bits, (ROWS, COLUMNS)), bits, palette=palette)
    found = decode_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found.samples, by_pypng(tmp_path / "a.png"))
    assert found.bits == 8


@pytest.mark.parametrize(("dtype", "channels", "planes", "compression", "order"), TIFFS)
def test_tiff(tmp_path, dtype, channels, planes, compression, order):
    values = samples_of(dtype, channels)
    if channels == 4:
        values[..., 3] = 1 if values.dtype.kind == "f" else np.iinfo(dtype).max  # opaque
    kind = {} if channels == 1 else {"photometric": "rgb", "planarconfig": planes}
    if channels == 4:
        kind["extrasamples"] = ["unassalpha"]
    stored = np.moveaxis(values, -1, 0) if channels > 1 and planes == "separate" else values
    tifffile.imwrite(tmp_path / "a.tif", stored, compression=compression, byteorder=order, metadata=None, **kind)
    found = decode_picture(tmp_path / "a.tif")
    expected = values if channels == 1 else values[..., :3]
    np.testing.assert_array_equal(found.samples, expected)
    assert found.samples.dtype.newbyteorder("=") == np.dtype(dtype)
    second = np.asarray(imagecodecs.tiff_decode((tmp_path / "a.tif").read_bytes()))
    if channels > 1 and planes == "separate":
        second = np.moveaxis(second, 0, -1)
    np.testing.assert_array_equal(found.samples, second if channels == 1 else second[..., :3])


@pytest.mark.parametrize(("bits", "compression", "order"), WHITE)
def test_white_is_zero(tmp_path, bits, compression, order):
    white = RNG.integers(0, 2**bits, (ROWS, COLUMNS), np.uint32)  # as shown
    stored = 2**bits - 1 - white
    stored = stored.astype(bool) if bits == 1 else stored.astype(f"u{bits // 8}")
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", compression=compression, byteorder=order)
    found = decode_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.samples, white)
    if bits in (1, 8):  # Pillow turns these over, but no deeper ones
        shown = np.asarray(Image.open(tmp_path / "a.tif").convert("L"))
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").slice(0), shown)


def test_white_is_zero_in_signed_samples_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", samples_of("i2"), photometric="miniswhite")
    with pytest.raises(ReadError, match="white at zero with int16 samples, which no standard defines.*black at zero"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("step", [257, 256, 1])
def test_palette_of_tiff(tmp_path, step):
    """Programs write the 8 bits of a colour into the map's 16 in three ways."""
    colours = RNG.integers(0, 256, (3, 256))
    index = samples_of("u1")
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=(colours * step).astype(np.uint16))
    found = decode_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.samples, np.moveaxis(colours[:, index], 0, -1))
    assert found.bits == 8


@pytest.mark.parametrize(("ending", "orientation"), ORIENTED)
def test_pictures_stand_upright(tmp_path, ending, orientation):
    values = RNG.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    picture = Image.fromarray(values)
    exif = picture.getexif()
    exif[274] = orientation
    options = {"tiffinfo": {274: orientation}} if ending == ".tif" else {"exif": exif}
    picture.save(tmp_path / f"a{ending}", **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"a{ending}")))
    np.testing.assert_array_equal(decode_picture(tmp_path / f"a{ending}").samples, expected)


def test_jpeg(tmp_path):
    for mode in ("L", "RGB"):
        Image.fromarray(samples_of("u1", len(mode))).save(tmp_path / "a.jpg")
        found = decode_picture(tmp_path / "a.jpg")
        np.testing.assert_array_equal(found.samples, np.asarray(Image.open(tmp_path / "a.jpg")))
        assert found.lossy == "JPEG"


def test_jpeg_2000_keeps_16_bits_per_channel(tmp_path):
    for channels in (1, 3):
        values = samples_of("u2", channels)
        (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, mct=False))
        np.testing.assert_array_equal(decode_picture(tmp_path / "a.jp2").samples, values)


@pytest.mark.parametrize(("highest", "plain"), list(itertools.product((1, 3, 200, 255, 4095, 65535), (False, True))))
def test_netpbm_has_its_own_highest_value(tmp_path, highest, plain):
    values = RNG.integers(0, highest, (ROWS, COLUMNS), endpoint=True)
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(
        ">u2" if highest > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"%s %d %d %d\n" % (b"P2" if plain else b"P5", COLUMNS, ROWS, highest) + body)
    np.testing.assert_array_equal(decode_picture(tmp_path / "a.pgm").samples, values)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_colour_is_luma_or_three_channels(tmp_path, dtype):
    values = samples_of(dtype, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    grey, channels = read_image(tmp_path / "a.tif"), read_image_channels(tmp_path / "a.tif", "rgb")
    np.testing.assert_array_equal(np.stack([channel.slice(0) for channel in channels], -1), values.astype(np.float32))
    exact = values.astype(np.float64) @ [0.299, 0.587, 0.114]
    scale = np.abs(exact).max() if dtype == "f4" else 1
    np.testing.assert_allclose(grey.slice(0), exact, atol=1.5 if dtype != "f4" else 1e-4 * scale)
    if dtype == "u1":
        np.testing.assert_array_equal(grey.slice(0), np.asarray(Image.fromarray(values).convert("L")))


def test_grey_is_its_own_luma_and_three_equal_channels(tmp_path):
    values = samples_of("u2")
    np.testing.assert_array_equal(luma(np.repeat(values[..., None], 3, -1)), values)
    Image.fromarray(values).save(tmp_path / "a.png")
    red, green, blue = read_image_channels(tmp_path / "a.png", "rgb")
    for channel in (red, green, blue):
        np.testing.assert_array_equal(channel.slice(0), values)


def test_what_is_no_single_opaque_picture_is_refused(tmp_path):
    grey, rgba = samples_of("u1"), samples_of("u2", 4)
    write_png(tmp_path / "alpha16.png", rgba, 16)
    write_png(tmp_path / "transparent16.png", rgba[..., :3], 16, transparent=tuple(map(int, rgba[0, 0, :3])))
    write_png(tmp_path / "transparent8.png", grey, 8, transparent=int(grey[0, 0]))
    tifffile.imwrite(tmp_path / "alpha.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([grey, grey]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", np.stack([grey, grey]), imagej=True)
    tifffile.imwrite(tmp_path / "cmyk.tif", rgba, photometric="separated")
    tifffile.imwrite(tmp_path / "complex.tif", grey.astype(np.complex64))
    Image.fromarray(rgba.astype(np.uint8), "CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(grey).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(grey[::-1])])
    Image.fromarray(grey).save(tmp_path / "a.tga")
    (tmp_path / "deep.ppm").write_bytes(b"P6 1 1 4095\n" + bytes(6))
    for name, reason in {"alpha16.png": "partly transparent", "transparent16.png": "partly transparent",
                         "transparent8.png": "partly transparent", "alpha.tif": "partly transparent",
                         "pages.tif": "has 2 frames", "imagej.tif": "has 2 frames", "cmyk.tif": "colours SEPARATED",
                         "complex.tif": "complex64 samples", "cmyk.jpg": "colours CMYK", "a.gif": "has 2 frames",
                         "a.tga": "is a TGA file", "deep.ppm": "16 bits per channel"}.items():
        with pytest.raises(ReadError, match=f"{name}: .*{reason}"):
            read_image(tmp_path / name)


def test_thumbnails_in_a_tiff_are_no_pages(tmp_path):
    values = samples_of("u2")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values, metadata=None)
        file.write(values[::2, ::2], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").slice(0), values)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
def test_a_tiff_of_more_rows_than_its_strips_hold_is_refused(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", samples_of("u2"), compression=compression, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for name in ("ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(200)
    with pytest.raises(ReadError, match="can't be decoded"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_without_all_of_its_pixels_is_refused(tmp_path, compression):
    """Strips that lie beyond the file's end, or of which the header says that they hold nothing, or too little."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint16), compression=compression, rowsperstrip=8,
                     metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        last = file.pages[0].dataoffsets[-1]
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:last + 1])
    with pytest.raises(ReadError, match="can't be decoded"):
        read_image(tmp_path / "cut.tif")
    for count in (0, 1):
        (tmp_path / "short.tif").write_bytes(whole)
        with tifffile.TiffFile(tmp_path / "short.tif", mode="r+") as file:
            tag = file.pages[0].tags["StripByteCounts"]
            tag.overwrite([*tag.value[:-1], count])
        with pytest.raises(ReadError, match="can't be decoded"):
            read_image(tmp_path / "short.tif")
