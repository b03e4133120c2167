"""The operators on a GPU: against the CPU's kernels, on streams, in graphs, compiled, misused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fastssl import ops
from fastssl.ops import reference
from tests.ops.test_augmentation import SCALES as AUGMENTATION_SCALES
from tests.ops.test_augmentation import draw as draw_augmentations

pytestmark = pytest.mark.gpu

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
SIZES = [1, 7, 16, 24, 64]


@pytest.fixture(scope="module", autouse=True)
def _kernels_are_built():
    assert ops.build_info()["cuda"], "the extension was built without CUDA kernels"


def random_images(num=6, height=75, width=90, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)


def random_cut(images, patches=9, size=16, seed=1):
    """Return corners and all options as keywords, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    num, height, width, _ = images.shape

    def integers(high):
        return torch.randint(0, high, (num, patches), generator=generator)

    corners = torch.stack([integers(height - size + 1), integers(width - size + 1)], -1).int()
    flip = torch.rand(num, generator=generator) < 0.5
    grey = torch.rand(num, patches, generator=generator) < 0.5
    order = torch.rand(num, patches, generator=generator).argsort(1)
    return corners, {"flip_B": flip, "grey": grey, "order_BP": order}


def to_gpu(values):
    return {name: v.cuda() if torch.is_tensor(v) else v for name, v in values.items()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_options", [True, False])
def test_uint8_patches_equal_those_of_the_cpu_to_the_bit(size, has_options):
    images = random_images()
    corners, options = random_cut(images, size=size)
    options = options if has_options else {}
    ours = ops.extract_patches(images.cuda(), corners.cuda(), size, **to_gpu(options))
    assert torch.equal(ours.cpu(), ops.extract_patches(images, corners, size, **options))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("scaling", ["normalize", "standardize"])
@pytest.mark.parametrize("size", [7, 24, 64])
def test_floating_patches_err_at_most_twice_as_much_as_pytorch(dtype, channels_last, scaling, size):
    images = random_images()
    corners, options = random_cut(images, size=size)
    pixels = ops.extract_patches(images, corners, size, **options).double()
    if scaling == "normalize":
        how = {"mean": MEAN, "std": STD}
        mean, std = torch.tensor([MEAN, STD], dtype=torch.float64)
        exact = ((pixels / 255 - mean) / std).movedim(-1, 2)
    else:
        how = {"standardize": True}
        centred = pixels - pixels.mean((2, 3, 4), keepdim=True)
        exact = (centred / centred.square().mean((2, 3, 4), keepdim=True).sqrt()).movedim(-1, 2)
    how |= {"dtype": dtype, "channels_last": channels_last}
    on_gpu = images.cuda(), corners.cuda(), size
    gpu_options = to_gpu(options)
    ours = ops.extract_patches(*on_gpu, **gpu_options, **how)
    theirs = reference.extract_patches(
        *on_gpu,
        *gpu_options.values(),
        how.get("mean"),
        how.get("std"),
        scaling == "standardize",
        dtype,
        channels_last,
    )
    assert ours.stride() == theirs.stride()
    assert (ours.cpu() - exact).abs().max() <= 2 * (theirs.cpu() - exact).abs().max()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(3, 224, 224), (5, 33, 47), (1, 3, 5), (2, 256, 512)])
def test_normalized_views_err_at_most_twice_as_much_as_pytorch(dtype, channels_last, shape):
    images = random_images(*shape)
    flip = torch.arange(len(images)) % 2 == 0
    grey = torch.arange(len(images)) % 3 == 0
    flags = flip.cuda(), grey.cuda()
    ours = ops.normalize(images.cuda(), MEAN, STD, *flags, dtype, channels_last)
    theirs = reference.normalize(images.cuda(), *flags, MEAN, STD, dtype, channels_last)
    pixels = reference._make_grey(reference._mirror(images, flip), grey).double()
    mean, std = torch.tensor([MEAN, STD], dtype=torch.float64)
    exact = ((pixels / 255 - mean) / std).movedim(-1, 1)
    assert ours.stride() == theirs.stride()
    worst = (theirs.cpu() - exact).abs().max()
    # Where PyTorch happens to be exact, the rounding of the type remains.
    rounding = torch.finfo(dtype).eps * exact.abs().max()
    assert (ours.cpu() - exact).abs().max() <= max(2 * worst, rounding)


@pytest.mark.parametrize(
    "slice_images",
    [
        lambda big: big[:, 3:78, 5:90],
        lambda big: big[::2, ::2, 1:88],
        lambda big: big.transpose(1, 2),
        lambda big: big.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    ],
    ids=["crop", "strided", "transposed", "planar"],
)
def test_sliced_images_give_what_their_copies_give(slice_images):
    images = slice_images(random_images(num=8, height=90, width=90).cuda())
    corners, options = random_cut(images.cpu(), size=24)
    options = to_gpu(options)
    copied = ops.extract_patches(images.contiguous(), corners.cuda(), 24, **options)
    assert torch.equal(ops.extract_patches(images, corners.cuda(), 24, **options), copied)


@pytest.mark.parametrize(("num", "patches"), [(0, 9), (4, 0), (0, 0)])
@pytest.mark.parametrize("standardize", [False, True])
def test_empty_inputs_give_empty_patches(num, patches, standardize):
    corners = torch.zeros(num, patches, 2, dtype=torch.int32, device="cuda")
    images = random_images(num).cuda()
    out = ops.extract_patches(images, corners, 16, standardize=standardize)
    assert out.shape == ((num, patches, 3, 16, 16) if standardize else (num, patches, 16, 16, 3))


def test_flat_and_large_patches_are_standardized_exactly():
    images = torch.full((2, 300, 300, 3), 255, dtype=torch.uint8, device="cuda")
    images[1, ::2] = 254
    corners = torch.zeros(2, 1, 2, dtype=torch.int32, device="cuda")
    flat, striped = ops.extract_patches(images, corners, 300, standardize=True)
    assert flat.eq(0).all()
    assert striped.unique().tolist() == [-1.0, 1.0]


@pytest.mark.slow
def test_places_beyond_32_bits_are_reached():
    # 4.4 billion elements: the last image and the last result lie behind 2**32 elements.
    images = torch.zeros(22_500, 256, 256, 3, dtype=torch.uint8, device="cuda")
    images[-1] = random_images(1, 256, 256)[0].cuda()
    corners = torch.zeros(len(images), 1, 2, dtype=torch.int32, device="cuda")
    if torch.cuda.mem_get_info()[0] < 10 * 2**30:
        pytest.skip("needs 10 GiB of free GPU memory")
    patches = ops.extract_patches(images, corners, 256)
    assert torch.equal(patches[-1, 0], images[-1])
    assert patches[:-1].sum(dtype=torch.int64) == 0


def test_nothing_waits_for_the_device():
    images = random_images()
    corners, options = random_cut(images)
    images, corners, options = images.cuda(), corners.cuda(), to_gpu(options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.extract_patches(images, corners, 16, **options, standardize=True)
        ops.normalize(images, MEAN, STD)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_work_goes_to_the_current_stream():
    images = random_images()
    wanted = ops.normalize(images, MEAN, STD)
    late = torch.zeros_like(images, device="cuda")
    pinned, stream = images.pin_memory(), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # On another stream the kernel would read zeros before they are overwritten.
        torch.cuda._sleep(50_000_000)
        late.copy_(pinned, non_blocking=True)
        ours = ops.normalize(late, MEAN, STD)
    stream.synchronize()
    torch.testing.assert_close(ours.cpu(), wanted, rtol=0, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_device_works_while_the_first_is_current():
    images = random_images()
    corners, options = random_cut(images)
    options = {name: value.to("cuda:1") for name, value in options.items()}
    with torch.cuda.device(0):
        ours = ops.extract_patches(images.to("cuda:1"), corners.to("cuda:1"), 16, **options)
        assert torch.cuda.current_device() == 0
    assert ours.device == torch.device("cuda:1")
    options = {name: value.cpu() for name, value in options.items()}
    assert torch.equal(ours.cpu(), ops.extract_patches(images, corners, 16, **options))


def test_a_tensor_on_another_device_is_refused():
    with pytest.raises(ValueError, match="corners_BP2 must be on cuda:0 like images, got cpu"):
        ops.extract_patches(random_images().cuda(), torch.zeros(6, 9, 2).int(), 16)


def test_a_captured_graph_follows_its_inputs():
    images, other = random_images().cuda(), random_images(seed=5).cuda()
    corners, options = random_cut(images.cpu())
    corners, options = corners.cuda(), to_gpu(options)

    def prepare():
        patches = ops.extract_patches(images, corners, 16, **options, standardize=True)
        return patches, ops.normalize(images, MEAN, STD, channels_last=True)

    prepare()  # warm-up
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = prepare()
    images.copy_(other)
    corners.zero_()
    graph.replay()
    for ours, eager in zip(captured, prepare(), strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_graphs_give_what_eager_gives(mode):
    corners, options = random_cut(random_images())
    corners, options = corners.cuda(), to_gpu(options)

    def prepare(images):
        patches = ops.extract_patches(images, corners, 16, **options, mean=MEAN, std=STD)
        return patches.mul(2), ops.normalize(images, MEAN, STD, channels_last=True).relu()

    compiled = torch.compile(prepare, fullgraph=True, mode=mode)
    for seed in range(4):  # reduce-overhead records at the second call and replays from the third
        images = random_images(seed=seed).cuda()
        for ours, eager in zip(compiled(images), prepare(images), strict=True):
            assert torch.equal(ours, eager)
            assert ours.stride() == eager.stride()


@pytest.mark.parametrize("name", ["extract_patches", "normalize"])
def test_opcheck(name):
    images = random_images().cuda()
    corners, options = random_cut(images.cpu())
    flip, grey, order = to_gpu(options).values()
    mean, std = list(MEAN), list(STD)
    cut = (images, corners.cuda(), 16, flip, grey, order)
    arguments = {
        "extract_patches": (*cut, mean, std, False, torch.float32, True),
        "normalize": (images, flip, None, mean, std, torch.float16, True),
    }[name]
    torch.library.opcheck(getattr(torch.ops.fastssl, name).default, arguments)


WRONG_VALUES = """
import torch
from fastssl import ops
images = torch.zeros(4, 40, 50, 3, dtype=torch.uint8, device="cuda")
corners = torch.zeros(4, 9, 2, dtype=torch.int32, device="cuda")
order = torch.arange(9, device="cuda").repeat(4, 1)
{change}
ops.extract_patches(images, corners, 16, order_BP=order, standardize={standardize})
torch.cuda.synchronize()
"""


@pytest.mark.parametrize("change", ["corners[2, 5, 1] = 35", "corners[1] = -1", "order[3, 8] = 9"])
@pytest.mark.parametrize("standardize", [False, True])
def test_wrong_values_trip_the_assertion(change, standardize):
    # In a process of its own: after the assertion the device context is lost.
    code = WRONG_VALUES.format(change=change, standardize=standardize)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "a patch crosses the border of its image, or order points outside" in done.stderr
    assert "device-side assert" in done.stderr


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
def test_jittered_colours_are_those_of_the_cpu(dtype, channels_last, standardize):
    images = random_images()
    generator = torch.Generator().manual_seed(2)
    order = torch.arange(len(images))
    colours = {
        "brightness_B": 0.4 * torch.rand(len(images), generator=generator) - 0.2,
        "saturation_B": 2 * torch.rand(len(images), generator=generator),
        "brightness_first_B": order % 2 == 0,
        "flip_B": order % 3 == 0,
        "grey_B": order % 4 == 1,
    }
    options = {"standardize": True} if standardize else {"mean": MEAN, "std": STD}
    options |= {"dtype": dtype, "channels_last": channels_last, "grey": "mean"}
    ours = ops.color_jitter(images.cuda(), **to_gpu(colours), **options)
    theirs = ops.color_jitter(images, **colours, **options)
    # Values up to 4, rounded at the end; the sums before differ in their last bits.
    tolerance = max(1e-5, 4 * torch.finfo(dtype).eps)
    torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("space", ["lab", "rgb"])
@pytest.mark.parametrize("width", [90, 91])
def test_augmented_views_are_those_of_the_cpu(dtype, channels_last, space, width):
    images, drawn = draw_augmentations(height=64, width=width)
    options = {"cutout": 5, "dtype": dtype, "channels_last": channels_last}
    scale = AUGMENTATION_SCALES[space]
    ours = ops.augment_views(images.cuda(), space, *scale, **to_gpu(drawn), **options)
    theirs = ops.augment_views(images, space, *scale, **drawn, **options)
    assert ours.stride() == theirs.stride()
    # Values up to 20, rounded at the end; a and b are differences of cube roots times 500.
    tolerance = max(1e-4, 16 * torch.finfo(dtype).eps)
    torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=tolerance)
