"""Camera simulation: label maps -> pictures, with each camera's background, light, haze, blur and noise (domain gap between cameras).

Knows cameras and pixels; not body parts, sentences or tables. A camera is a handful of numbers and one long strip of street
drawn once; a picture is a window on that strip with a person laid over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.body import Pose, paint_occluder, paint_person, part_colors, strike_pose
from reid_ray.data.synthetic.canvas import Canvas, Frame
from reid_ray.data.synthetic.traits import Draws, People, Shots, draw_people

OVERSAMPLE = 2  # parts are painted at twice the size and averaged, so that edges are smooth
_BODY_HEIGHT, _BODY_WIDTH = 128.0, 64.0
_STATURE = 122.0  # from the crown, hat included, to the soles
_NOISE_VALUES = 1 << 20


@dataclass(frozen=True)
class Cameras:
    """What each camera [C] does to a picture. Drawn from the seed alone."""

    street_CHW3: np.ndarray  # uint8, wider and taller than a crop
    cast_C3: np.ndarray  # gain per colour channel
    haze_C: np.ndarray  # share of grey mixed in
    blur_C: np.ndarray  # weight of the neighbours in each blur pass
    noise_C: np.ndarray  # standard deviation in grey levels
    tilt_C: np.ndarray  # a high camera sees people shortened


class Scene:
    """Draws any images of a configuration: `Scene(config).draw(shots)` -> uint8 [N, height, width, 3]."""

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._cameras = _install_cameras(config)
        noise = np.random.default_rng(config.seed).standard_normal(_NOISE_VALUES, dtype=np.float32)
        self._noise_windows = np.lib.stride_tricks.sliding_window_view(noise, min(config.height * config.width * 3, _NOISE_VALUES))

    def draw(self, shots: Shots, people: People | None = None) -> np.ndarray:
        """uint8 [N, height, width, 3]. Memory is about 150 bytes a pixel: the caller chooses N.

        Args:
            shots: who is seen, from where, before what.
            people: what the people of the shots look like, one for each; None: as the seed has them.
        """
        return self.draw_with_parts(shots, people)[0]

    def parts(self, shots: Shots, people: People | None = None) -> np.ndarray:
        """What is seen where: uint8 [N, OVERSAMPLE * height, OVERSAMPLE * width], codes of body.PARTS; arguments as of draw."""
        return self._paint(shots, people)[0]

    def draw_with_parts(self, shots: Shots, people: People | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The pictures of draw, and their parts."""
        cameras = self._cameras
        part_NHW, pose = self._paint(shots, people)
        person_NHW4 = _colored(part_NHW, part_colors(pose))
        picture = self._backgrounds(shots).astype(np.float32)
        picture *= (255 - person_NHW4[..., 3:]) * np.float32(1 / 255)
        picture += person_NHW4[..., :3]
        self._light(picture, shots)
        _blur(picture, cameras.blur_C[shots.camera_N])
        self._grain(picture, shots)
        return np.clip(picture, 0, 255, out=picture).astype(np.uint8), part_NHW

    def street(self, camera: int) -> np.ndarray:
        """What a camera sees where nobody walks: uint8 [H, W, 3], four crops wide, before light, haze and grain."""
        return self._cameras.street_CHW3[camera]

    def _paint(self, shots: Shots, people: People | None) -> tuple[np.ndarray, Pose]:
        config = self._config
        pose = strike_pose(config.seed, shots, draw_people(config.seed, shots.person_N) if people is None else people)
        canvas = Canvas(self._frame(shots), config.height * OVERSAMPLE, config.width * OVERSAMPLE)
        paint_person(canvas, pose)
        paint_occluder(canvas, pose)
        return canvas.label_NHW, pose

    def _frame(self, shots: Shots) -> Frame:
        moment, body = Draws(self._config.seed, shots.index_N), Draws(self._config.seed, shots.person_N)
        unit_y, unit_x = self._config.height * OVERSAMPLE / _BODY_HEIGHT, self._config.width * OVERSAMPLE / _BODY_WIDTH
        # A detector's box fits the person, tall or short, give or take its error; a high camera only makes people look stouter.
        head_N, feet_N = unit_y * moment.uniform("box top", 1, 6), unit_y * moment.uniform("box bottom", 121, 127)
        scale_y_N = (feet_N - head_N) / _STATURE
        tilt_N = self._cameras.tilt_C[shots.camera_N] * body.uniform("tall", 0.96, 1.04)
        return Frame(
            left_N=unit_x * (_BODY_WIDTH / 2 + moment.uniform("box x", -3.5, 3.5)),
            top_N=head_N,
            scale_x_N=scale_y_N * (unit_x / unit_y) / tilt_N,
            scale_y_N=scale_y_N,
            facing_N=np.where(moment.below("facing", 2) == 1, 1.0, -1.0),
        )

    def _backgrounds(self, shots: Shots) -> np.ndarray:
        config, moment = self._config, Draws(self._config.seed, shots.index_N)
        street = self._cameras.street_CHW3
        windows = np.lib.stride_tricks.sliding_window_view(street, (config.height, config.width), axis=(1, 2))
        y_N, x_N = moment.below("street y", windows.shape[1]), moment.below("street x", windows.shape[2])
        return windows[shots.camera_N, y_N, x_N].transpose(0, 2, 3, 1)

    def _light(self, picture: np.ndarray, shots: Shots) -> None:
        """Camera gain and cast, a gradient from one side, haze: in place."""
        moment, cameras = Draws(self._config.seed, shots.index_N), self._cameras
        gain_N3 = cameras.cast_C3[shots.camera_N] * moment.uniform("gain", 0.86, 1.12)[:, None]
        slope_NW = 1 + moment.uniform("slope", -0.16, 0.16)[:, None] * np.linspace(-1, 1, self._config.width)
        haze_N = cameras.haze_C[shots.camera_N]
        picture *= ((1 - haze_N)[:, None, None] * gain_N3[:, None] * slope_NW[..., None])[:, None].astype(np.float32)
        picture += (haze_N * 150)[:, None, None, None].astype(np.float32)

    def _grain(self, picture: np.ndarray, shots: Shots) -> None:
        """Sensor noise, in place; a long strip of normal numbers is made once and each picture starts somewhere on it."""
        count, values = len(picture), picture[0].size
        start_N = Draws(self._config.seed, shots.index_N).below("noise", self._noise_windows.shape[0])
        repeats = -(-values // self._noise_windows.shape[1])
        grain_NV = np.tile(self._noise_windows[start_N], (1, repeats))[:, :values] if repeats > 1 else self._noise_windows[start_N]
        picture += (grain_NV * self._cameras.noise_C[shots.camera_N, None].astype(np.float32)).reshape(count, *picture.shape[1:])


def _colored(label_NHW: np.ndarray, color_NP4: np.ndarray) -> np.ndarray:
    """Label maps -> premultiplied RGB and opacity at the final size, float32 [N, H / oversample, W / oversample, 4].

    One lookup colours two neighbouring pixels at once: it finds the sum of their colours, four 16-bit channels in one 64-bit number.
    """
    count, parts, _ = color_NP4.shape
    wide_NP = np.ascontiguousarray(color_NP4.astype("<u2")).view("<u8").reshape(count, parts)
    pair_sums = (wide_NP[:, :, None] + wide_NP[:, None, :]).reshape(-1)
    offset_N = np.arange(count, dtype=np.int32)[:, None, None] * parts**2
    pair_NHW = label_NHW[..., 0::2] * np.int32(parts) + label_NHW[..., 1::2] + offset_N
    halved = np.take(pair_sums, pair_NHW)
    total = halved[:, 0::2] + halved[:, 1::2]
    return total.view("<u2").reshape(*total.shape, 4) * np.float32(1 / OVERSAMPLE**2)


def _blur(picture: np.ndarray, weight_N: np.ndarray) -> None:
    """A three-tap blur along rows, then columns, in place: out = (1 - 2 w) x + w (left + right), edges kept."""
    side = weight_N[:, None, None, None].astype(np.float32)
    for axis in (1, 2):
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        step = (picture[ahead] - picture[behind]) * side
        picture[behind] += step
        picture[ahead] -= step


def _install_cameras(config: SyntheticConfig) -> Cameras:
    draw = Draws(config.seed, np.arange(config.cameras))
    cast_C3 = np.stack([draw.uniform(f"cast {channel}", 0.88, 1.1) for channel in "rgb"], axis=1)
    return Cameras(
        street_CHW3=np.stack([_street(config, camera) for camera in range(config.cameras)]),
        cast_C3=cast_C3 * draw.uniform("exposure", 0.78, 1.1)[:, None],
        haze_C=draw.uniform("haze", 0.0, 0.12),
        blur_C=draw.uniform("blur", 0.05, 0.26),
        noise_C=draw.uniform("noise", 2.0, 7.0),
        tilt_C=draw.uniform("tilt", 0.9, 1.05),
    )


def _street(config: SyntheticConfig, camera: int) -> np.ndarray:
    """A strip of street four crops wide: a wall or hedge above, paving below, and things that stand about. uint8 [H', W', 3]."""
    rng = np.random.default_rng([config.seed, camera])
    height, width = config.height + max(config.height // 10, 1), config.width * 4
    y_H, x_W = np.arange(height) / config.height * _BODY_HEIGHT, np.arange(width) / config.width * _BODY_WIDTH
    horizon = rng.uniform(50, 100)
    wall, ground = rng.uniform(70, 205, 3), rng.uniform(90, 180)
    wall = 0.4 * wall + 0.6 * wall.mean()  # streets are rarely gaudy
    street = np.where((y_H < horizon)[:, None, None], wall, ground * np.array([1.0, 0.98, 0.94]))
    street = np.broadcast_to(street, (height, width, 3)).copy()
    course, brick = rng.uniform(5, 14), rng.uniform(9, 30)
    row_H = np.floor(y_H / course)
    joint = (np.mod(y_H, course) < 1.0)[:, None] | (np.mod(x_W[None] + brick / 2 * (row_H[:, None] % 2), brick) < 1.0)
    above = (y_H < horizon)[:, None]
    street[joint & above] *= rng.uniform(0.72, 1.12)
    slabs = (np.mod(x_W[None] + (y_H[:, None] - horizon) * rng.uniform(-0.8, 0.8), 24) < 1.0) | (np.mod(y_H, 17) < 1.0)[:, None]
    street[slabs & ~above] *= 0.86
    for _ in range(rng.integers(4, 9)):  # windows, doors, posters, bins, trunks
        left, top = rng.uniform(0, x_W[-1]), rng.uniform(0, 80)
        wide, high = rng.uniform(4, 26), rng.uniform(10, 50)
        thing = (np.abs(x_W - left) < wide / 2)[None] & (np.abs(y_H - top - high / 2) < high / 2)[:, None]
        rim = (np.abs(x_W - left) < wide / 2 - 1.2)[None] & (np.abs(y_H - top - high / 2) < high / 2 - 1.2)[:, None]
        color = rng.uniform(40, 220, 3)
        street[thing] = 0.5 * color
        street[thing & rim] = 0.6 * color + 0.4 * color.mean()
    blotch = np.kron(rng.normal(0, 1, (height // 8 + 1, width // 8 + 1)), np.ones((8, 8)))[:height, :width]
    street += (blotch * rng.uniform(2, 9))[..., None]
    return np.clip(street, 0, 255).astype(np.uint8)
