"""The DALI side of the DALI back end: one graph, fed in our order, and the refusals it makes.

DALI's decoder would apply the EXIF orientation by itself (its boxes are then upright ones). It is
told not to: it reads damaged EXIF blocks otherwise than the reference does, and would turn such a
picture silently. Boxes are turned into stored coordinates here, and the small views are turned
back, so that the CPU's and the GPU's decoders are asked for nothing but pixels.

Shape legend: B samples of a run, V views of each, S side of a view.
"""

from __future__ import annotations

import contextlib
import functools
import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import RunFailed
from ..views import ViewSpec, intermediate_sizes

# What an orientation does to a stored picture: sides swapped first, then mirrored.
_SWAPPED = (5, 6, 7, 8)
_MIRRORED_X = (2, 3, 6, 7)
_MIRRORED_Y = (3, 4, 7, 8)


def is_turned_sideways(orientation: int) -> bool:
    """Return whether an EXIF orientation, 1..8, swaps width and height."""
    return orientation in _SWAPPED


def to_stored_boxes(
    boxes: NDArray[np.int32],
    widths: NDArray[np.int64],
    heights: NDArray[np.int64],
    orientations: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Return boxes in the coordinates of pictures as they are stored.

    Args:
        boxes: int32 (B, V, 4) left, top, width, height in upright pixels.
        widths: (B,) of the upright pictures in pixels.
        heights: (B,) likewise.
        orientations: (B,) EXIF orientation, 1..8.

    Returns:
        int32 (B, V, 4) left, top, width, height in stored pixels.
    """
    left, top, width, height = np.moveaxis(boxes, -1, 0)
    mirrored_x = np.isin(orientations, _MIRRORED_X)[:, None]
    mirrored_y = np.isin(orientations, _MIRRORED_Y)[:, None]
    swapped = np.isin(orientations, _SWAPPED)[:, None, None]
    left = np.where(mirrored_x, widths[:, None] - left - width, left)
    top = np.where(mirrored_y, heights[:, None] - top - height, top)
    stored = np.stack((left, top, width, height), axis=-1)
    return np.where(swapped, stored[..., [1, 0, 3, 2]], stored).astype(np.int32)


def turn_views(views_VHWC: Tensor, orientation: int) -> Tensor:
    """Turn views that were cut from a stored picture upright.

    Args:
        views_VHWC: (V, H, W, 3).
        orientation: EXIF orientation of the picture, 1..8.

    Returns:
        (V, H, W, 3), or (V, W, H, 3) where sides are swapped; a new tensor.
    """
    mirrored = [axis for axis, of in ((2, _MIRRORED_X), (1, _MIRRORED_Y)) if orientation in of]
    if not views_VHWC.is_cuda:
        # By NumPy: torch would wake threads of its own, which then spin on the cores of DALI's.
        pixels = views_VHWC.numpy()
        turned = pixels.swapaxes(1, 2) if orientation in _SWAPPED else pixels
        return torch.from_numpy(np.flip(turned, tuple(mirrored)).copy())
    if orientation in _SWAPPED:
        views_VHWC = views_VHWC.transpose(1, 2)
    return views_VHWC.flip(mirrored) if mirrored else views_VHWC.clone()


def resize_area(pixels_HWC: Tensor, width: int, height: int) -> Tensor:
    """Resize by the box filter of the reference picture; DALI has none.

    Each output pixel is the mean of the pixels whose centres lie in its box, along rows, rounded,
    and then along columns. Runs where the pixels are.

    Args:
        pixels_HWC: uint8 (H, W, 3).
        width: of the output in pixels.
        height: of the output in pixels.

    Returns:
        uint8 (height, width, 3).
    """
    return _mean_along(_mean_along(pixels_HWC, 1, width), 0, height)


def _mean_along(pixels: Tensor, axis: int, length: int) -> Tensor:
    if pixels.shape[axis] == length:
        return pixels
    first, last = (torch.from_numpy(ends) for ends in _box_ends(pixels.shape[axis], length))
    count = (last - first).reshape([-1 if a == axis else 1 for a in range(3)])
    first, last, count = (x.to(pixels.device) for x in (first, last, count))
    sums = torch.nn.functional.pad(
        pixels.cumsum(axis, dtype=torch.int32), (0, 0) * (2 - axis) + (1, 0)
    )
    total = sums.index_select(axis, last) - sums.index_select(axis, first)
    return ((2 * total + count) // (2 * count)).to(torch.uint8)  # halves are rounded up


def _box_ends(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first pixel of each output's box, and the first behind it."""
    scale = length / size
    reach = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - reach / 2 + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach / 2 + 0.5).astype(np.int64), length)
    # The box is open on its left and closed on its right.
    first += (first + 0.5 - centre) / reach <= -0.5
    last -= (last - 0.5 - centre) / reach > 0.5
    return first, last


@dataclass
class DaliRun:
    """What DALI decodes at one go: some rows of a batch."""

    rows: list[int]
    """Rows of the batch, B of them; none if the reference decoder took them all."""
    payloads: list[NDArray[np.uint8]]
    """(length,) bytes of each; DALI reads them where they lie, so they stay until it is done."""
    boxes: NDArray[np.int32]
    """(B, V, 4) in stored pixels."""
    orientations: NDArray[np.int64]
    """(B,) EXIF orientations."""
    sizes: NDArray[np.int32]
    """(B, V, 2) width and height of what each box is resized to, as it is stored."""
    began: float = field(default_factory=time.perf_counter)
    """When it was handed to DALI (seconds of ``time.perf_counter``)."""

    def part(self, picked: Sequence[int]) -> DaliRun:
        """Return a run of some of its samples, by their place in this one."""
        places = list(picked)
        return DaliRun(
            [self.rows[i] for i in places],
            [self.payloads[i] for i in places],
            self.boxes[places],
            self.orientations[places],
            self.sizes[places],
        )


class RefusedError(Exception):
    """Samples of a run that DALI does not decode."""

    def __init__(self, run: DaliRun, places: list[int], message: str):
        """Keep the run, the places of the samples in it, and what DALI said."""
        super().__init__(places, message)
        self.run = run
        self.places = places
        self.message = message


class DaliPipeline:
    """Decodes runs in the order in which they come; the next ones while one is taken.

    One view: only its box is decoded. Several: one full decode, then slices. For use by one thread.
    """

    def __init__(
        self,
        views: tuple[ViewSpec, ...],
        batch_size: int,
        num_threads: int,
        device: torch.device,
    ) -> None:
        """Build the graph.

        Args:
            views: V specs of equal size S.
            batch_size: samples of the largest run.
            num_threads: threads that decode.
            device: where the views shall lie.
        """
        self.views = views
        self.batch_size = batch_size
        self.num_threads = num_threads
        self.device = device
        self._in_flight: deque[DaliRun] = deque()
        self._pipe = self._build()

    def __len__(self) -> int:
        """Return the number of runs that were handed over and not taken."""
        return len(self._in_flight)

    def submit(self, run: DaliRun) -> None:
        """Hand a run over; returns at once."""
        self._in_flight.append(run)
        self._feed(run)

    @contextlib.contextmanager
    def taking(self, stream: Any = None) -> Iterator[tuple[DaliRun, list[Any]]]:
        """Wait for the oldest run; within the block its outputs are the caller's.

        Args:
            stream: CUDA stream that the outputs are bound to; None on the CPU.

        Yields:
            The run and its outputs: one dense TensorList (B, S, S, 3), or (B, V, S, S, 3) of
            several views; where a view has an area filter, one TensorList a view, dense
            (B, S, S, 3), or the stored pixels of each box.

        Raises:
            RefusedError: if DALI refuses samples of the run, which is then dropped; those behind
                it are decoded as if nothing had happened.
            RunFailed: if DALI fails whatever the samples.
        """
        run = self._in_flight.popleft()
        try:
            outputs = list(self._pipe.share_outputs(stream))
        except RuntimeError as error:
            message = _last_words(error)
            places = self._find_refused(run, message)
            for waiting in self._in_flight:
                self._feed(waiting)
            raise RefusedError(run, places, message) from None
        try:
            yield run, outputs
        finally:
            del outputs
            self._pipe.release_outputs()

    def close(self) -> None:
        """Wait for what is in flight and release it."""
        while self._in_flight:
            self._in_flight.popleft()
            # What a run that nobody wants comes to is nobody's matter.
            with contextlib.suppress(RuntimeError):
                self._drop_outputs()
        self._pipe = None

    def _build(self) -> Any:
        from nvidia.dali import Pipeline

        on_gpu = self.device.type == "cuda"
        # At a depth of one runs queue up all the same, and the first call starts one run, not as
        # many as the depth.
        pipe = Pipeline(
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            device_id=(self.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=1,
            # The other executor takes new memory for each run's outputs: 100 page faults an image
            # and a tenth of the speed.
            exec_dynamic=on_gpu,
        )
        with pipe:
            pipe.set_outputs(*_build_graph(self.views, on_gpu))
        pipe.build()
        return pipe

    def _feed(self, run: DaliRun) -> None:
        pipe = self._pipe
        pipe.feed_input("payloads", run.payloads)
        for v, spec in enumerate(self.views):
            pipe.feed_input(f"start{v}", np.ascontiguousarray(run.boxes[:, v, :2]))
            pipe.feed_input(f"shape{v}", np.ascontiguousarray(run.boxes[:, v, 2:]))
            if _is_resized_twice(spec):
                # Height first, as DALI has it.
                first = intermediate_sizes([spec], run.boxes[:, v : v + 1])[:, 0, ::-1]
                pipe.feed_input(f"first{v}", first.astype(np.float32))
            if _is_fitted(spec):
                pipe.feed_input(f"size{v}", run.sizes[:, v, ::-1].astype(np.float32))
        run.began = time.perf_counter()
        pipe.schedule_run()

    def _drop_outputs(self) -> None:
        self._pipe.share_outputs()
        self._pipe.release_outputs()

    def _find_refused(self, run: DaliRun, message: str) -> list[int]:
        """Halve the run until the samples that DALI refuses stand alone."""
        self._pipe = self._build()  # one that has raised is no longer valid
        refused: list[int] = []
        parts = [list(range(len(run.rows)))]
        while parts:
            part = parts.pop()
            if self._decodes(run.part(part)):
                continue
            if len(part) == 1:
                refused.append(part[0])
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        if not refused or not self._decodes(_tiny_run(len(self.views))):
            raise RunFailed(
                f"DALI failed, whatever the samples ({message}); if memory is short, lower "
                "--data.global-batch-size or --data.prefetch-batches, else choose another "
                "--data.loader"
            )
        return refused

    def _decodes(self, run: DaliRun) -> bool:
        try:
            self._feed(run)
            self._drop_outputs()
        except RuntimeError:
            self._pipe = self._build()
            return False
        return True


def _build_graph(views: tuple[ViewSpec, ...], on_gpu: bool) -> list[Any]:
    from nvidia.dali import fn, types

    def source(name: str, dtype: Any, **options: Any) -> Any:
        return fn.external_source(name=name, device="cpu", ndim=1, dtype=dtype, **options)

    # The CPU's decoder reads the bytes where they lie; a GPU's may still do so when the outputs
    # are handed over, so it gets a copy.
    payloads = source("payloads", types.DALIDataType.UINT8, no_copy=not on_gpu)
    options: dict[str, Any] = {
        "device": "mixed" if on_gpu else "cpu",
        "adjust_orientation": False,
        "use_fast_idct": False,
    }
    if on_gpu:
        options["jpeg_fancy_upsampling"] = True
    boxes = [
        {
            "start": source(f"start{v}", types.DALIDataType.INT32),
            "shape": source(f"shape{v}", types.DALIDataType.INT32),
            "axis_names": "WH",
        }
        for v in range(len(views))
    ]
    if len(views) == 1:
        crops = [fn.decoders.image_slice(payloads, **boxes[0], **options)]
    else:
        picture = fn.decoders.image(payloads, **options)
        crops = [fn.slice(picture, **box) for box in boxes]
    outputs = []
    for v, (spec, crop) in enumerate(zip(views, crops, strict=True)):
        if _is_resized_twice(spec):
            crop = _resize(crop, source(f"first{v}", types.DALIDataType.FLOAT))
        if _is_fitted(spec):
            crop = _resize(crop, source(f"size{v}", types.DALIDataType.FLOAT))
            outputs.append(fn.pad(crop, axes=(0, 1), shape=[spec.size] * 2, fill_value=0))
        else:
            outputs.append(crop if spec.filter == "area" else _resize(crop, [spec.size] * 2))
    if len(views) == 1 or any(spec.filter == "area" for spec in views):
        return outputs
    return [fn.stack(*outputs)]


def _resize(pixels: Any, size: Any) -> Any:
    """Antialiased triangle; what was cut off before is out of the filter's reach."""
    from nvidia.dali import fn, types

    return fn.resize(
        pixels, size=size, interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True
    )


def _is_resized_twice(spec: ViewSpec) -> bool:
    """Return whether DALI does two resamplings; those with an area filter are not its matter."""
    return spec.kind == "resize_squash" and spec.filter == "triangle"


def _is_fitted(spec: ViewSpec) -> bool:
    """Return whether DALI makes less of a box than the square; likewise."""
    return spec.kind == "fit" and spec.filter == "triangle"


@functools.cache
def _tiny_payload() -> bytes:
    tiny = io.BytesIO()
    Image.new("RGB", (1, 1)).save(tiny, "JPEG")
    return tiny.getvalue()


def _tiny_run(num_views: int) -> DaliRun:
    """Return a run of one sample that any decoder takes."""
    box = np.array([0, 0, 1, 1], np.int32)
    payload = np.frombuffer(_tiny_payload(), np.uint8)
    boxes = np.tile(box, (1, num_views, 1))
    return DaliRun([0], [payload], boxes, np.ones(1, np.int64), boxes[..., 2:])


def _last_words(error: RuntimeError) -> str:
    """Return what DALI says behind the traceback of the graph's definition, in one line."""
    text = str(error).rpartition("encountered:")[2]
    text = text.replace("Current pipeline object is no longer valid.", "")
    return " ".join(text.split())
