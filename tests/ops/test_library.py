"""The operators as torch sees them, with and without their kernels."""

from __future__ import annotations

import pytest
import torch

from fastssl import ops
from fastssl.extension import load_extension
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


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "dtype", "channels_last", "is_sliced"), CASES)
def test_cuda_gives_what_the_cpu_gives(name, dtype, channels_last, is_sliced):
    op = getattr(torch.ops.fastssl, name).default
    arguments = sample_arguments(name, dtype, channels_last, is_sliced)
    on_gpu = op(*(a.cuda() if torch.is_tensor(a) else a for a in arguments))
    on_cpu = op(*arguments)
    assert on_gpu.stride() == on_cpu.stride()
    # Two roundings of the same exact value in float32, one more where the type is narrower.
    eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=2 * eps, atol=4 * eps)


def test_build_info_tells_what_runs():
    info = ops.build_info()
    assert sorted(info) == ["cpu", "cuda", "cuda_archs", "jpeg", "torch", "version"]
    assert info["cpu"] is load_extension()
    assert info["cuda"] is bool(info["cuda_archs"])
    assert info["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_luma_of_grey_pixels_is_their_value():
    values = torch.arange(256, dtype=torch.uint8)[:, None].expand(-1, 3)
    assert torch.equal(reference.luma(values), values[:, 0])
