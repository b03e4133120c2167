"""The operators as torch sees them, with and without their kernels."""

from __future__ import annotations

import re

import pytest
import torch

from fastssl import ops
from fastssl.extension import describe_misfit, load_extension, read_build
from fastssl.ops import library, reference

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def sample_arguments(name, dtype, channels_last=False, is_sliced=False):
    """Return positional arguments of an operator, all options given."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 24, 20, 3), dtype=torch.uint8, generator=generator)
    if is_sliced:
        images = images[:, 2:22, 1:19]
    flip, grey = torch.tensor([True, False, True]), torch.tensor([False, True, True])
    if name == "normalize":
        return images, flip, grey, MEAN, STD, dtype, channels_last
    corners = torch.randint(0, 10, (3, 4, 2), dtype=torch.int32, generator=generator)
    order = torch.rand(3, 4, generator=generator).argsort(1)
    scale = (None, None) if dtype == torch.uint8 else (MEAN, STD)
    return images, corners, 8, flip, grey, order, *scale, False, dtype, channels_last


CASES = [
    ("extract_patches", torch.uint8, False, False),
    ("extract_patches", torch.float32, False, True),
    ("extract_patches", torch.bfloat16, True, False),
    ("normalize", torch.float32, False, False),
    ("normalize", torch.float16, True, True),
]


@pytest.mark.parametrize(("name", "dtype", "channels_last", "is_sliced"), CASES)
def test_opcheck(name, dtype, channels_last, is_sliced):
    op = getattr(torch.ops.fastssl, name).default
    torch.library.opcheck(op, sample_arguments(name, dtype, channels_last, is_sliced))


def test_schemas_of_the_library_are_the_ones_written_in_python():
    library.check_schemas(library.SCHEMAS)


@pytest.mark.parametrize("name", ["normalize", "no_such_operator"])
def test_an_extension_built_from_other_sources_is_refused(name):
    with pytest.raises(ImportError, match=f"built from other sources: {name} is"):
        library.check_schemas({name: "(Tensor images) -> Tensor"})


@pytest.mark.parametrize(("name", "dtype", "channels_last", "is_sliced"), CASES)
def test_fake_has_the_strides_of_the_real_result(name, dtype, channels_last, is_sliced):
    op = getattr(torch.ops.fastssl, name).default
    arguments = sample_arguments(name, dtype, channels_last, is_sliced)
    real = op(*arguments)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = op(*(mode.from_tensor(a) if torch.is_tensor(a) else a for a in arguments))
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_graph_is_whole_and_gives_what_eager_gives(dynamic):
    images, corners, size, flip, grey, order, *_ = sample_arguments(
        "extract_patches", torch.float32
    )

    def prepare(images, corners):
        patches = ops.extract_patches(
            images, corners, size, flip_B=flip, grey=grey, order_BP=order, mean=MEAN, std=STD
        )
        return patches * 2, ops.normalize(images, MEAN, STD, flip_B=flip, channels_last=True) + 1

    compiled = torch.compile(prepare, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for ours, theirs in zip(compiled(images, corners), prepare(images, corners), strict=True):
        assert torch.equal(ours, theirs)


def test_a_compiled_graph_refuses_a_patch_across_the_border():
    images, corners, size, *_ = sample_arguments("extract_patches", torch.uint8)
    compiled = torch.compile(ops.extract_patches, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="crosses the border of the 24 x 20 image"):
        compiled(images, corners + 100, size)


@pytest.mark.slow
def test_inductor_gives_what_eager_gives():
    images, *_ = sample_arguments("normalize", torch.float32)

    def prepare(images):
        return ops.normalize(images, MEAN, STD, channels_last=True).relu() * 0.5

    assert torch.equal(torch.compile(prepare, fullgraph=True)(images), prepare(images))


HAS_CUDA_KERNELS = bool(read_build().get("cuda_archs"))
needs_cuda_kernels = pytest.mark.skipif(
    not HAS_CUDA_KERNELS, reason="the extension was built without CUDA kernels"
)


@needs_cuda_kernels
@pytest.mark.parametrize("name", library.SCHEMAS)
def test_kernels_for_cuda_are_registered_without_a_gpu(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"fastssl::{name}", "CUDA")


@pytest.mark.parametrize(("name", "dtype", "channels_last", "is_sliced"), CASES)
def test_fake_tensors_on_a_gpu_need_no_gpu(name, dtype, channels_last, is_sliced):
    arguments = sample_arguments(name, dtype, channels_last, is_sliced)
    real = getattr(torch.ops.fastssl, name).default(*arguments)
    public = {"extract_patches": ops.extract_patches, "normalize": ops.normalize}[name]
    images, *rest = arguments
    with torch._subclasses.FakeTensorMode():
        images = torch.empty_strided(
            images.shape, images.stride(), dtype=images.dtype, device="cuda"
        )
        rest = [
            torch.empty(a.shape, dtype=a.dtype, device="cuda") if torch.is_tensor(a) else a
            for a in rest
        ]
        if name == "normalize":
            flip, grey, mean, std, *_ = rest
            fake = public(images, mean, std, flip, grey, dtype, channels_last)
        else:
            corners, size, flip, grey, order, mean, std, *_ = rest
            options = {"flip_B": flip, "grey": grey, "order_BP": order, "mean": mean, "std": std}
            options |= {"dtype": dtype, "channels_last": channels_last}
            fake = public(images, corners, size, **options)
    assert fake.device.type == "cuda"
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


BUILD = {"torch": "2.15.0", "cuda": "13.2", "cuda_archs": "8.0,9.0+PTX", "jpeg": ""}


@pytest.mark.parametrize(
    ("change", "version", "cuda", "match"),
    [
        ({}, "2.15.0+cu132", "13.2", None),
        ({}, "2.15.1+cu132", "13.2", r"built for torch 2\.15\.0, and this is torch 2\.15\.1"),
        ({}, "2.15.0+cpu", None, r"CUDA 13\.2, and torch 2\.15\.0\+cpu is a build without CUDA"),
        ({}, "2.15.0+cu126", "12.6", r"CUDA 13\.2, and .* is a build for CUDA 12\.6"),
        ({"cuda": "", "cuda_archs": ""}, "2.15.0+cu126", "12.6", None),
        ({"cuda": "", "cuda_archs": ""}, "2.15.0+cpu", None, None),
    ],
)
def test_a_binary_fits_the_torch_that_it_was_built_for(change, version, cuda, match):
    misfit = describe_misfit(BUILD | change, version, cuda)
    assert misfit is None if match is None else re.search(match, misfit)


@pytest.mark.parametrize(
    ("device", "capability", "build", "match"),
    [
        ("cpu", None, {}, "runs without its extension.*install a C"),
        ("cuda", (9, 0), {}, "runs without its extension"),
        ("cuda", (9, 0), BUILD | {"cuda_archs": ""}, "without CUDA kernels.*FASTSSL_CUDA=1 pip"),
        (
            "cuda",
            (7, 5),
            BUILD,
            r'for compute capability 8\.0,9\.0\+PTX, and this .* 7\.5.*ARCHS="7',
        ),
        ("xpu", None, BUILD, "no kernels for xpu"),
    ],
)
def test_the_reference_says_why_it_stands_in(device, capability, build, match):
    text = library.explain_reference(device, capability, build)
    assert re.search(match, text)
    assert "run their slower PyTorch reference" in text


@pytest.mark.parametrize("name", ["extract_patches", "normalize"])
def test_the_stand_in_of_a_kernel_is_the_reference(name):
    arguments = sample_arguments(name, torch.float32)
    function = getattr(torch.ops.fastssl, f"reference_{name}").default
    library._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="run their slower PyTorch reference"):
        result = function(*arguments)
    assert torch.equal(result, getattr(reference, name)(*arguments))


def test_build_info_tells_what_runs():
    info = ops.build_info()
    assert sorted(info) == ["cpu", "cuda", "cuda_archs", "jpeg", "torch", "version"]
    assert info["cpu"] is load_extension()
    assert info["cuda"] is bool(info["cuda_archs"])
    assert info["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_luma_of_grey_pixels_is_their_value():
    values = torch.arange(256, dtype=torch.uint8)[:, None].expand(-1, 3)
    assert torch.equal(reference.luma(values), values[:, 0])
