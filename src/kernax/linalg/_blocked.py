"""LAPACK's `potrf` and `potri` of large matrices, block by block, as its own reference does them.

OpenBLAS divides a product of a matrix with its own transpose among threads without a look at how
much its buffers hold: the one that comes with SciPy 1.17 ends the process where two threads
factorise 16,000 rows. No call below makes such a product of more than `BLOCK` rows; all others
are divided well.
"""

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._lapack import Routines

AT_ONCE = 8192  # rows of a matrix that LAPACK may have whole
BLOCK = 2048

# Of matrices by columns: the upper triangle, from the left or right, as it is or transposed.
U, LEFT, RIGHT, AS_IS, TRANSPOSED = b"U", b"L", b"R", b"N", b"T"


def in_blocks(routines: "Routines", n: int) -> "Routines":
    """The routines, with `potrf` and `potri` for the upper triangle of an n x n matrix."""
    real = type(routines.one)
    size, starts = ctypes.sizeof(real), range(0, n, BLOCK)

    def at(A: int, row: int, column: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(A + (row + column * n) * size)

    def called(routine: Callable[..., None]) -> Callable[..., None]:
        """The routine, given the numbers whose addresses it takes."""

        def address(x: Any) -> Any:
            if isinstance(x, int | float):
                return ctypes.byref(ctypes.c_int(x) if isinstance(x, int) else real(x))
            return x

        return lambda *arguments: routine(*map(address, arguments))

    gemm, syrk = called(routines.gemm), called(routines.syrk)
    trsm, trmm = called(routines.trsm), called(routines.trmm)
    factor, trtri, lauum = (
        called(routine) for routine in (routines.potrf, routines.trtri, routines.lauum)
    )

    def potrf(_uplo: int, _n: int, A: int, _lda: int, info: int) -> None:
        done = ctypes.c_int.from_address(info)
        for j in starts:
            b = min(BLOCK, n - j)
            k, rest = j + b, n - j - b
            syrk(U, TRANSPOSED, b, j, -1.0, at(A, 0, j), n, 1.0, at(A, j, j), n)
            factor(U, b, at(A, j, j), n, ctypes.byref(done))
            if done.value:
                return
            above, right = at(A, 0, k), at(A, j, k)
            gemm(TRANSPOSED, AS_IS, b, rest, j, -1.0, at(A, 0, j), n, above, n, 1.0, right, n)
            trsm(LEFT, U, TRANSPOSED, AS_IS, b, rest, 1.0, at(A, j, j), n, right, n)

    def potri(_uplo: int, _n: int, A: int, _lda: int, info: int) -> None:
        done = ctypes.byref(ctypes.c_int.from_address(info))
        for j in starts:  # the inverse of the factor
            b, above, corner = min(BLOCK, n - j), at(A, 0, j), at(A, j, j)
            trmm(LEFT, U, AS_IS, AS_IS, j, b, 1.0, at(A, 0, 0), n, above, n)
            trsm(RIGHT, U, AS_IS, AS_IS, j, b, -1.0, corner, n, above, n)
            trtri(U, AS_IS, b, corner, n, done)
        for j in starts:  # times its transpose
            b, above, corner = min(BLOCK, n - j), at(A, 0, j), at(A, j, j)
            k, rest = j + b, n - j - b
            trmm(RIGHT, U, TRANSPOSED, AS_IS, j, b, 1.0, corner, n, above, n)
            lauum(U, b, corner, n, done)
            right = at(A, j, k)
            gemm(AS_IS, TRANSPOSED, j, b, rest, 1.0, at(A, 0, k), n, right, n, 1.0, above, n)
            syrk(U, AS_IS, b, rest, 1.0, right, n, 1.0, corner, n)

    return routines._replace(potrf=potrf, potri=potri)
