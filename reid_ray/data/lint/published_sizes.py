"""Published split sizes (reference statistics): images, identities and captions that a download is compared with.

Facts only, each with its source. A split that is not listed has no published number, or none that the authors' own files bear out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The size of one split; None where nothing is published. Captions are (least, most): releases differ a little."""

    images: int | None = None
    identities: int | None = None
    captions: tuple[int, int] | None = None


SOURCES: dict[str, str] = {
    "CUHK-PEDES": "Li et al., CVPR 2017; captions of train as counted in the releases in use",
    "ICFG-PEDES": "Ding et al., 2021",
    "RSTPReid": "Zhu et al., ACM MM 2021: 5 images and 2 captions an image",
    "Market-1501": "Zheng et al., ICCV 2015; gallery without junk, its identities with the distractors as one",
    "DukeMTMC-reID": "Zheng et al., ICCV 2017",
    "MSMT17": "Wei et al., CVPR 2018; train is list_train.txt and list_val.txt together",
    "CUHK03-detected": "Zhong et al., CVPR 2017, new protocol",
    "CUHK03-labeled": "Zhong et al., CVPR 2017, new protocol",
    "LUPerson": "Fu et al., CVPR 2021",
    "UFine6926": "Zuo et al., CVPR 2024: 26,206 images of two captions each",
    "UFine3C": "Zuo et al., CVPR 2024",
    "MALS": "Yang et al., ACM MM 2023",
}

# "train+val" counts both splits together; "none" is an unsplit data set.
PUBLISHED: dict[str, dict[str, Published]] = {
    "CUHK-PEDES": {
        "train": Published(34_054, 11_003, (68_108, 68_126)),
        "val": Published(3_078, 1_000, (6_158, 6_158)),
        "test": Published(3_074, 1_000, (6_156, 6_156)),
    },
    "ICFG-PEDES": {"train": Published(34_674, 3_102, (34_674, 34_674)), "test": Published(19_848, 1_000, (19_848, 19_848))},
    "RSTPReid": {
        "train": Published(18_505, 3_701, (37_010, 37_010)),
        "val": Published(1_000, 200, (2_000, 2_000)),
        "test": Published(1_000, 200, (2_000, 2_000)),
    },
    "Market-1501": {"train": Published(12_936, 751), "query": Published(3_368, 750), "gallery": Published(15_913, 751)},
    "DukeMTMC-reID": {"train": Published(16_522, 702), "query": Published(2_228, 702), "gallery": Published(17_661, 1_110)},
    "MSMT17": {"train+val": Published(32_621, 1_041), "query": Published(11_659, 3_060), "gallery": Published(82_161, 3_060)},
    "CUHK03-detected": {"train": Published(7_365, 767), "query": Published(1_400, 700), "gallery": Published(5_332, 700)},
    "CUHK03-labeled": {"train": Published(7_368, 767), "query": Published(1_400, 700), "gallery": Published(5_328, 700)},
    "LUPerson": {"none": Published(4_180_243)},
    "UFine6926": {
        "train": Published(18_577, captions=(37_154, 37_154)),
        "test": Published(7_629, captions=(15_258, 15_258)),
        "train+test": Published(26_206, 6_926, (52_412, 52_412)),
    },
    "UFine3C": {"test": Published(7_446, 2_250, (37_939, 37_939))},
    "MALS": {"none": Published(1_510_330, captions=(1_510_330, 1_510_330))},
}
