"""Arithmetic of the studies' cells, written down because counting takes a second a cell.

A test counts some of them again; all are by ``fastssl.studies.cost.count_operations``.
"""

from __future__ import annotations

GIGAFLOPS: dict[str, tuple[float, ...]] = {
    "goyal19_jigsaw_alexnet": (8.33074, 8.34551, 8.37744, 8.45116, 8.57404),
    "goyal19_jigsaw_resnet50": (18.1328, 18.1652, 18.2354, 18.3974, 18.6674),
    "goyal19_colorization_alexnet": (22.635,),
    "goyal19_colorization_resnet50": (61.0886,),
    "goyal19_supervised_alexnet": (4.34644,),
    "goyal19_supervised_resnet50": (24.5351,),
    "kolesnikov19_rotation_resnet50_v1": (98.0915, 386.701, 865.828, 1535.47),
    "kolesnikov19_rotation_resnet50_v2": (98.0915, 386.701, 865.828, 1535.47),
    "kolesnikov19_rotation_resnet50_v2_minus": (98.0915, 386.701, 865.828, 1535.47),
    "kolesnikov19_rotation_revnet50": (43.0568, 142.015, 296.876, 507.637),
    "kolesnikov19_rotation_revnet50_minus": (43.0568, 142.015, 296.876, 507.637),
    "kolesnikov19_rotation_vgg19_bn": (118.288, 471.072, 1058.35, 1880.12),
    "kolesnikov19_exemplar_resnet50_v1": (196.284, 773.601, 1731.95, 3071.34),
    "kolesnikov19_exemplar_resnet50_v2": (196.284, 773.601, 1731.95, 3071.34),
    "kolesnikov19_exemplar_resnet50_v2_minus": (196.284, 773.601, 1731.95, 3071.34),
    "kolesnikov19_exemplar_revnet50": (86.2146, 284.23, 594.048, 1015.67),
    "kolesnikov19_exemplar_revnet50_minus": (86.2146, 284.23, 594.048, 1015.67),
    "kolesnikov19_exemplar_vgg19_bn": (236.677, 942.342, 2117, 3760.64),
    "kolesnikov19_jigsaw_resnet50_v1": (111.338, 435.602, 974.58, 1728.27),
    "kolesnikov19_jigsaw_resnet50_v2": (111.338, 435.602, 974.58, 1728.27),
    "kolesnikov19_jigsaw_resnet50_v2_minus": (111.338, 435.602, 974.58, 1728.27),
    "kolesnikov19_jigsaw_revnet50": (45.0843, 152.552, 324.193, 560.007),
    "kolesnikov19_jigsaw_revnet50_minus": (45.0843, 152.552, 324.193, 560.007),
    "kolesnikov19_jigsaw_vgg19_bn": (23.8341, 89.3656, 198.384, 350.888),
    "kolesnikov19_relative_location_resnet50_v1": (109.944, 434.207, 973.186, 1726.88),
    "kolesnikov19_relative_location_resnet50_v2": (109.944, 434.207, 973.186, 1726.88),
    "kolesnikov19_relative_location_resnet50_v2_minus": (109.944, 434.207, 973.186, 1726.88),
    "kolesnikov19_relative_location_revnet50": (43.6899, 151.158, 322.799, 558.612),
    "kolesnikov19_relative_location_revnet50_minus": (43.6899, 151.158, 322.799, 558.612),
    "kolesnikov19_relative_location_vgg19_bn": (22.4398, 87.9713, 196.989, 349.494),
    "kolesnikov19_supervised_resnet50_v1": (24.5351, 96.6997, 216.494, 383.917),
    "kolesnikov19_supervised_resnet50_v2": (24.5351, 96.6997, 216.494, 383.917),
    "kolesnikov19_supervised_resnet50_v2_minus": (24.5351, 96.6997, 216.494, 383.917),
    "kolesnikov19_supervised_revnet50": (10.7764, 35.5283, 74.2556, 126.958),
    "kolesnikov19_supervised_revnet50_minus": (10.7764, 35.5283, 74.2556, 126.958),
    "kolesnikov19_supervised_vgg19_bn": (29.5843, 117.792, 264.624, 470.08),
}
"""Cell without its last part -> 10^9 operations of a training step for one image of the dataset: of
Goyal et al. 2019 by difficulty, one figure where it changes nothing; of Kolesnikov et al. 2019 by
width."""
