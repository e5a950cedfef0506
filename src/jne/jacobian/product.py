"""The main matrix product, readout times hidden Jacobian, in three precisions.

float32   the encoder's own precision (float64 for a float64 encoder)
bfloat16  products of bfloat16, sums in float32; fast on GPUs and on CPUs with AMX
int8      products of int8 scaled by row and column, sums in int32; fast on CPUs with VNNI, which
          most CPUs without AMX have
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from jne.errors import InputError
from jne.utils.blocks import voxel_blocks

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS = get_args(Precision)
_INT8_MAX = 127
_ROWS = 8192  # converted at a time


class ReadoutMatmul:
    """The product of `readout` (V, H) with matrices (H, D), one block of its rows at a time.

    Raises ValueError for an unknown precision, and for int8 on a GPU.
    """

    def __init__(self, readout: Tensor, precision: str, device: torch.device) -> None:
        if precision not in PRECISIONS:
            choices = ", ".join(PRECISIONS)
            raise InputError("precision", f"choose from {choices}", value=precision)
        if precision == "int8" and device.type != "cpu":
            raise InputError(
                "precision", "this is for the CPU; use bfloat16 on a GPU", value=precision
            )
        self.precision, self.dtype = precision, readout.dtype
        if precision == "int8":
            self.row_scale = readout.new_empty(len(readout), 1)
            self.weights = torch.empty(readout.shape, dtype=torch.int8)
            for block in voxel_blocks(len(readout), _ROWS):  # without a float copy of all rows
                self.row_scale[block] = _scale(readout[block], dim=1)
                self.weights[block] = (readout[block] / self.row_scale[block]).round_()
        else:
            self.weights = readout.to(
                device, torch.bfloat16 if precision == "bfloat16" else readout.dtype
            )
        copied = self.weights.data_ptr() != readout.data_ptr()
        self.nbytes = self.weights.nbytes if copied else 0
        """Bytes in addition to the readout itself."""
        self._buffers: dict[str, Tensor] = {}

    @property
    def bytes_per_value(self) -> int:
        """Bytes of the buffers per value of a block's result."""
        return {"float32": self.dtype.itemsize, "bfloat16": 2 + 4, "int8": 4 + 4}[self.precision]

    def right(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """A matrix (H, D) as `rows` takes it: converted, with the scale of its columns for int8."""
        if self.precision != "int8":
            return matrix.to(self.weights.dtype), None
        scale = _scale(matrix, dim=0)  # (1, D)
        return (matrix / scale).round_().to(torch.int8), scale

    def rows(self, block: slice, right: tuple[Tensor, Tensor | None]) -> Tensor:
        """A block of rows of the product, (v, D) float32 or float64, in a buffer that is reused."""
        matrix, scale = right
        weights = self.weights[block]
        if scale is not None:
            sums = self._buffer("int32", len(weights), matrix, torch.int32)
            torch._int_mm(weights, matrix, out=sums)
            values = self._buffer("values", len(weights), matrix, self.dtype)
            return values.copy_(sums).mul_(scale).mul_(self.row_scale[block])
        values = self._buffer("product", len(weights), matrix, matrix.dtype)
        torch.mm(weights, matrix, out=values)
        if self.precision == "bfloat16":
            return self._buffer("values", len(weights), matrix, torch.float32).copy_(values)
        return values

    def _buffer(self, name: str, n_rows: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < n_rows:
            buffer = torch.empty(n_rows, like.shape[1], dtype=dtype, device=like.device)
            self._buffers[name] = buffer
        return buffer[:n_rows]


def _scale(values: Tensor, dim: int) -> Tensor:
    """The value of one int8 step; 1 for all zeros, so that nothing is divided by zero."""
    largest = values.abs().amax(dim=dim, keepdim=True)
    return torch.where(largest > 0, largest / _INT8_MAX, 1)
