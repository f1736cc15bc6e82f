"""Functions of Python that XLA calls on the host with buffers of its own: nothing is copied.

They are targets of XLA's foreign function interface, whose layout in memory its header
`xla/ffi/api/c_api.h` fixes for libraries that are compiled apart. `jax.pure_callback` puts its
operands on the device inside the callback and so can wait for itself; what JAX lowers callbacks
to besides copies operands and results. A function here must not call JAX either.
"""

import _thread
import atexit
import ctypes
import functools
import math
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.extend
import numpy as np
from jax.interpreters import mlir
from jaxtyping import Array

from .._typing import HostArray

EXECUTE, METADATA, INTERNAL = 3, 1, 13
DTYPES: dict[int, Any] = {11: np.dtype(np.float32), 12: np.dtype(np.float64)}

_HANDLER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_registered: list[Any] = []  # what XLA has the addresses of


def _version() -> tuple[int, int]:
    """That of the header which JAX ships; what is read below has its place in 0.1 and later 0.x."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    text = header.read_text() if header.exists() else ""
    found = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", text))
    return int(found.get("MAJOR", -1)), int(found.get("MINOR", -1))


VERSION = _version()
AVAILABLE = VERSION[0] == 0 and VERSION[1] >= 1  # elsewhere the work is done in JAX


class _Head(ctypes.Structure):
    _fields_: ClassVar[Any] = (("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p))


class _Version(_Head):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int))


class _Api(_Head):
    _fields_ = (
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("error_create", ctypes.c_void_p),
    )


class _Buffer(_Head):
    _fields_ = (
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
    )

    def array(self) -> HostArray:
        """The memory itself."""
        shape, dtype = tuple(self.sizes[: self.rank]), DTYPES[self.dtype]
        count = math.prod(shape)
        if not count:
            return np.empty(shape, dtype)
        memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(self.data)
        found: HostArray = np.frombuffer(memory, dtype).reshape(shape)
        return found


class _Buffers(_Head):
    _fields_ = (
        ("size", ctypes.c_int64),
        ("kinds", ctypes.c_void_p),
        ("each", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )

    def arrays(self) -> list[HostArray]:
        """Operands, or results to be written."""
        return [each.contents.array() for each in self.each[: self.size]]


class _Call(_Head):
    _fields_ = (
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("operands", _Buffers),
        ("results", _Buffers),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("version", _Version))


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("kind", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


class _Error(_Head):
    _fields_ = (("message", ctypes.c_char_p), ("code", ctypes.c_int))


# --- registering and calling -------------------------------------------------------------------


def register(name: str, function: Callable[[list[HostArray], list[HostArray]], None]) -> None:
    """Make ``function(operands, results)``, which writes the results, what `call` knows by a name.

    The first operand and the first result have one piece of memory, if XLA keeps to what it is
    told: in a call that it has divided among devices it does not.
    """
    if not AVAILABLE:
        return

    def handler(address: int) -> int | None:
        at = _Call.from_address(address)
        try:
            if at.extension:
                _describe(at.extension)
            elif at.stage == EXECUTE:
                function(at.operands.arrays(), at.results.arrays())
        except BaseException as error:  # which has nowhere else to go
            if isinstance(error, KeyboardInterrupt):
                _thread.interrupt_main()
            text = f"{type(error).__name__}: {error}".encode()
            given = _Error(ctypes.sizeof(_Error), None, text, INTERNAL)
            found: int = _HANDLER(at.api.contents.error_create)(ctypes.addressof(given))
            return found
        return None

    _registered.append(_HANDLER(handler))
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(_registered[-1]), platform="cpu")
    jax.ffi.register_ffi_target_as_batch_partitionable(name)


def _describe(address: int) -> None:
    """Answer for which version of the interface this is."""
    extension = _Extension.from_address(address)
    if extension.kind == METADATA:
        version = extension.metadata.contents.version
        version.major, version.minor = VERSION


def call(name: str, shapes: list[Any], *operands: Array, batch: bool) -> list[Array]:
    """The results, of these shapes, of what was registered by a name, on CPUs.

    With ``batch`` the first axis of all operands and results is one that devices may share out.
    """
    shapes = [tuple(shape) for shape in shapes]
    found: list[Array] = host_p.bind(*operands, name=name, shapes=tuple(shapes), batch=batch)
    return found


host_p = jax.extend.core.Primitive("kernax_host")
host_p.multiple_results = True


host_p.def_abstract_eval(
    lambda first, *_, shapes, **__: [jax.core.ShapedArray(shape, first.dtype) for shape in shapes]
)


def _lower(ctx: Any, *operands: Any, name: str, shapes: Any, batch: bool) -> Any:
    _outlive()
    attributes = {}
    if batch:
        attributes["mhlo.frontend_attributes"] = mlir.ir_attribute({"num_batch_dims": "1"})
        rule = _sharding_rule([x.shape for x in ctx.avals_in], shapes)
        attributes["sdy.sharding_rule"] = mlir.ir.Attribute.parse(rule)
    lower = jax.ffi.ffi_lowering(
        name, operand_output_aliases={0: 0}, extra_attributes=attributes or None
    )
    return lower(ctx, *operands)


mlir.register_lowering(host_p, _lower, platform="cpu")


def _sharding_rule(operands: Any, results: Any) -> str:
    """That the first axes are one, and that each of the others is of its own."""
    sizes: dict[str, int] = {"i": operands[0][0]}
    names = iter(string.ascii_lowercase[string.ascii_lowercase.index("j") :])

    def named(shape: tuple[int, ...]) -> str:
        own = {next(names): size for size in shape[1:]}
        sizes.update(own)
        return f"[{', '.join(['i', *own])}]"

    given, made = (", ".join(map(named, shapes)) for shapes in (operands, results))
    extents = ", ".join(f"{name}={size}" for name, size in sizes.items())
    return f"#sdy.op_sharding_rule<({given})->({made}) {{{extents}}}>"


@functools.cache
def _outlive() -> None:
    """Let the process end while something is computed.

    Its thread will ask for Python's lock, and is ended where Python is gone; JAX's client would
    then wait for it while it is taken down, which one that is still in use never is.
    """

    def keep() -> None:
        client = jax.local_devices(backend="cpu")[0].client
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))

    atexit.register(keep)
