"""Common corruptions of images, made here from the images themselves; after CIFAR-10-C.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019.
The settings of each severity are those of their script for images of 32 pixels a side; lengths grow with a larger side.
Other random numbers, other filters and a frost that is drawn (theirs is photographs) make other pictures than theirs.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.attacks.warping import sampled
from idc.errors import IDCError
from idc.noise import Streams

Array = NDArray[Any]
_SIDE = 32  # of the images that the settings are for
_ZOOMS = (1.06, 1.11, 1.16, 1.21, 1.26)
# What is done to images (B, C, H, W) in [0, 1], with one severity's setting, the images' streams, and their side / 32,
# at least 1: a shorter blur than a pixel would change nothing.
_Change = Callable[[Array, Any, Streams, float], Array]


def _gaussian_noise(x: Array, sigma: float, streams: Streams, scale: float) -> Array:
    return x + sigma * streams.normal(x.shape[1:]).numpy()


def _shot_noise(x: Array, photons: float, streams: Streams, scale: float) -> Array:
    """Poisson counts: the quantiles of uniform numbers."""
    return stats.poisson.ppf(streams.uniform(x.shape[1:]).numpy(), x * photons) / photons


def _impulse_noise(x: Array, share: float, streams: Streams, scale: float) -> Array:
    ends = streams.of("ends").uniform(x.shape[1:]).numpy() < 0.5
    return np.where(streams.uniform(x.shape[1:]).numpy() < share, ends, x)


def _defocus_blur(x: Array, setting: tuple[float, float], streams: Streams, scale: float) -> Array:
    radius, soft = (scale * v for v in setting)
    reach = np.arange(-math.ceil(radius + 1), math.ceil(radius + 1) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(float)
    disk = ndimage.gaussian_filter(disk, soft, mode="constant", truncate=1 / soft)  # a pixel around
    return _filtered(x, [disk / disk.sum()] * len(x))


def _filtered(x: Array, kernels: Sequence[Array]) -> Array:
    """(B, C, H, W), each image by its own square kernel, as a sum of shifted images: most weights of a trail are 0;
    edges are mirrored."""
    found, (height, width) = np.zeros_like(x), x.shape[2:]
    for row, kernel in enumerate(kernels):
        reach = len(kernel) // 2
        wide = np.pad(x[row], ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
        for i, j in np.argwhere(kernel):
            found[row] += kernel[i, j] * wide[:, i : i + height, j : j + width]
    return found


def _glass_blur(x: Array, setting: tuple[float, int, int], streams: Streams, scale: float) -> Array:
    """Pixels change places with near ones, between two Gaussian blurs."""
    sigma, reach, rounds = scale * setting[0], max(1, round(scale * setting[1])), setting[2]
    x, rows = ndimage.gaussian_filter(x, (0, 0, sigma, sigma)), np.arange(len(x))
    height, width = x.shape[2:]
    for at in range(rounds):
        moves = np.floor(streams.of(at).uniform((height, width, 2)).numpy() * (2 * reach + 1)).astype(int) - reach
        for i in range(height - 1 - reach, reach - 1, -1):
            for j in range(width - 1 - reach, reach - 1, -1):
                other = (rows, slice(None), i + moves[:, i, j, 0], j + moves[:, i, j, 1])
                x[:, :, i, j], x[other] = x[other], x[:, :, i, j].copy()
    return ndimage.gaussian_filter(x, (0, 0, sigma, sigma))


def _motion_blur(x: Array, setting: tuple[float, float], streams: Streams, scale: float) -> Array:
    angles = 90 * streams.of("angle").uniform((1,))[:, 0].numpy() - 45
    return _filtered(x, [_trail(*setting, angle, scale) for angle in angles])


def _trail(radius: float, sigma: float, degrees: float, scale: float) -> Array:
    """A kernel: half a Gaussian along a line from the middle, each of its points shared out over four pixels; to where
    its weights vanish, at 6 sigma."""
    length = max(1, min(round(2 * scale * radius), math.ceil(6 * scale * sigma)))
    kernel = np.zeros((2 * length + 3, 2 * length + 3))
    for at in range(length + 1):
        y, x = (length + 1 + at * f(math.radians(degrees)) for f in (math.sin, math.cos))
        weight, i, j = math.exp(-((at / (scale * sigma)) ** 2) / 2), math.floor(y), math.floor(x)
        for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
            kernel[i + di, j + dj] += weight * (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
    return kernel / kernel.sum()


def _zoom_blur(x: Array, largest: float, streams: Streams, scale: float) -> Array:
    zooms = np.arange(1, largest, 0.01)
    return (x + sum(_magnified(x, zoom) for zoom in zooms)) / (len(zooms) + 1)


def _magnified(x: Array, zoom: float) -> Array:
    """The middle of each image, as large as the image."""
    still = torch.zeros(len(x), dtype=torch.float64)
    return sampled(torch.from_numpy(x), still, still, still, zoom=zoom, outside="border").numpy()


def _snow(x: Array, setting: tuple[float, ...], streams: Streams, scale: float) -> Array:
    mean, spread, zoom, least, radius, sigma, kept = setting
    flakes = mean + spread * streams.normal((1, *x.shape[2:])).numpy().astype(float)
    flakes = _magnified(flakes, max(1.0, zoom * scale))
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    angles = -135 + 90 * streams.of("angle").uniform((1,))[:, 0].numpy()
    flakes = _filtered(flakes, [_trail(radius, sigma, angle, scale) for angle in angles])
    pale = np.maximum(x, 1.5 * x.mean(1, keepdims=True) + 0.5)
    return kept * x + (1 - kept) * pale + flakes + flakes[:, :, ::-1, ::-1]


def _frost(x: Array, setting: tuple[float, float], streams: Streams, scale: float) -> Array:
    """Veins of ice where a plasma passes its middle, bluish in colour images; drawn, not photographed."""
    veins = 1 - np.abs(2 * _plasma(x.shape[2:], 1.7, streams) - 1)
    tint = np.array([0.85, 0.95, 1.0] if x.shape[1] == 3 else [0.95])[None, :, None, None]
    return setting[0] * x + setting[1] * tint * (0.25 + 0.75 * veins**2)[:, None]


def _fog(x: Array, setting: tuple[float, float], streams: Streams, scale: float) -> Array:
    most, (thick, decay) = x.max((1, 2, 3), keepdims=True), setting
    return (x + thick * _plasma(x.shape[2:], decay, streams)[:, None]) * most / (most + thick)


def _plasma(shape: Sequence[int], decay: float, streams: Streams) -> Array:
    """(B, H, W) in [0, 1]: the diamond-square algorithm on a torus, whose noise shrinks by ``decay`` from one length to
    its half."""
    side = 2 ** math.ceil(math.log2(max(2, *shape)))
    field, step, wibble = np.zeros((len(streams.ids), side, side)), side, 1.0

    def noise(*keys: object) -> Array:
        return wibble * (2 * streams.of("plasma", step, *keys).uniform((side // step, side // step)).numpy() - 1)

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        right = np.roll(corners, -1, 2)
        middles = (corners + np.roll(corners, -1, 1) + right + np.roll(right, -1, 1)) / 4 + noise("square")
        field[:, half::step, half::step] = middles
        field[:, half::step, ::step] = (
            middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        ) / 4 + noise("left")
        field[:, ::step, half::step] = (middles + np.roll(middles, 1, 1) + corners + right) / 4 + noise("top")
        step, wibble = half, wibble / decay
    field -= field.min((1, 2), keepdims=True)
    return (field / field.max((1, 2), keepdims=True))[:, : shape[0], : shape[1]]


def _brightness(x: Array, more: float, streams: Streams, scale: float) -> Array:
    """V of HSV, hue and saturation as they are."""
    value = x.max(1, keepdims=True)
    brighter = (value + more).clip(max=1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def _contrast(x: Array, share: float, streams: Streams, scale: float) -> Array:
    mean = x.mean((2, 3), keepdims=True)
    return mean + share * (x - mean)


def _elastic_transform(x: Array, setting: tuple[float, float, float], streams: Streams, scale: float) -> Array:
    """Three points of the image move by up to a share of its side, and each pixel by smooth noise besides."""
    height, width = x.shape[2:]
    strength, sigma, affine = (v * height for v in setting)
    third = height / 3
    points = np.array([[1, 1, 1], [2, 1, 1], [1, 2, 1]]) * [third, third, 1]
    moved = points[:, :2] + affine * (2 * streams.of("points").uniform((3, 2)).numpy() - 1)
    fields = 2 * streams.of("field").uniform((2, height, width)).numpy().astype(float) - 1
    fields = strength * ndimage.gaussian_filter(fields, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    grid = np.stack([*np.mgrid[:height, :width], np.ones((height, width))])
    found = np.empty_like(x)
    for row, own in enumerate(x):
        turn = np.linalg.solve(points, moved[row]).T
        place = np.tensordot(turn, grid, 1) + fields[row]
        found[row] = [ndimage.map_coordinates(channel, place, order=1, mode="reflect") for channel in own]
    return found


def _pixelate(x: Array, share: float, streams: Streams, scale: float) -> Array:
    height, width = x.shape[2:]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    box = Image.Resampling.BOX
    return _by_pictures(x, lambda picture: picture.resize(small, box).resize((width, height), box))


def _jpeg_compression(x: Array, quality: int, streams: Streams, scale: float) -> Array:
    def through(picture: Image.Image) -> Image.Image:
        picture.save(file := io.BytesIO(), "JPEG", quality=quality)
        return Image.open(file)

    return _by_pictures(x, through)


def _by_pictures(x: Array, change: Callable[[Image.Image], Image.Image]) -> Array:
    """Each image as one of 8 bits a channel, changed; where it has no three, each channel by itself."""
    pictures = (255 * x).round().astype(np.uint8)
    if x.shape[1] == 3:
        found = [np.asarray(change(Image.fromarray(own.transpose(1, 2, 0)))).transpose(2, 0, 1) for own in pictures]
    else:
        found = [np.asarray(change(Image.fromarray(own))) for own in pictures.reshape(-1, *x.shape[2:])]
    return np.stack(found).reshape(x.shape) / 255


KINDS: dict[str, tuple[_Change, tuple[Any, ...]]] = {  # and the settings of severities 1 to 5
    "gaussian-noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot-noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse-noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus-blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass-blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion-blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom-blur": (_zoom_blur, _ZOOMS),
    "snow": (_snow, ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                     (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                     (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8))),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic-transform": (_elastic_transform, ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
                                               (0.1, 0.03, 0.03))),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg-compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}  # fmt: skip


def corrupted(images: Tensor, kind: str, severity: int, streams: Streams) -> Tensor:
    """Images (B, C, H, W) in [0, 1] after a corruption, as pictures of 8 bits: multiples of 1/255 in [0, 1], of the
    same shape, dtype and device. Of four channels the last (alpha) stays as it is.

    Args:
        kind: of ``KINDS``. severity: 1 to 5.
        streams: of the images' random numbers; the same for every severity.

    Raises:
        IDCError: for another kind or severity.
    """
    if kind not in KINDS or severity not in range(1, 6):
        raise IDCError(f"{kind} of severity {severity}", f"one of {', '.join(KINDS)}, of 1 to 5", "correct it")
    change, settings = KINDS[kind]
    colours = 3 if images.shape[1] == 4 else images.shape[1]
    shown, alpha = images[:, :colours], images[:, colours:]
    own = Streams(streams.ids.cpu(), streams.seed).of(kind)
    x = shown.detach().cpu().double().numpy()
    found = torch.from_numpy(change(x, settings[severity - 1], own, max(1.0, images.shape[-1] / _SIDE))).clamp(0, 1)
    return torch.cat([(255 * found).round().div(255).to(images), alpha], 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """A corruption in the place of an attack: it asks nothing of the model.

    Args:
        threat: the whole range of pixels: no ball bounds it.
        kind, severity: see ``corrupted``.
    """

    threat: Threat
    kind: str
    severity: int

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        return corrupted(images, self.kind, self.severity, streams) if len(images) else images.clone()
