"""Rows shared out over the devices of a mesh, and whole arrays from them."""

import math
import zlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._errors import DTypeError, InputError, ParameterError, ShapeError
from .._inputs import rounded
from .._typing import HostArray
from ._agreement import agree


def row_mesh(axis: str = "rows") -> Mesh:
    """A mesh of one axis over all devices of all processes."""
    return Mesh(np.asarray(jax.devices()), (axis,))


def shard_rows(mesh: Mesh, *arrays: Any, axis: str | None = None, fill: float = math.nan) -> Any:
    """Arrays (n, ...) that every process holds alike, as global ones whose rows the devices share.

    ``mesh``: whose ``axis`` the rows are shared out over; it may be left out where there is one.
    To make n a multiple of its size, rows of ``fill`` follow: NaN, which Kernax reads as padding,
    or 0 for vectors that an operator is multiplied with. Booleans are filled with False.

    Returns the array, or a tuple of several. Each process sends its devices their own rows only.
    Raises on every process `ShapeError`, `DTypeError`, or `InputError` where one holds others.
    """
    hosts: list[HostArray] = []

    def local() -> dict[str, Any]:
        hosts.extend(_hosts(arrays, fill))
        own = _described(mesh, axis, fill, hosts)
        if len(hosts[0]) == 0:
            raise ShapeError("`arrays[0]` has no rows. Fix: pass at least one.")
        own["contents"] = [_checksum(host) for host in hosts] if jax.process_count() > 1 else []
        return own

    said = agree("shard_rows", local)
    _check_alike(said, mesh)
    _check_whole(said)
    name = str(said[0]["axis"])
    rows = _padded(len(hosts[0]), mesh.shape[name])
    _check_fill(hosts, fill, padded=rows > len(hosts[0]))
    sharding = NamedSharding(mesh, PartitionSpec(name))

    def shared(host: HostArray) -> jax.Array:
        def part(index: Any) -> HostArray:
            start, stop, _ = index[0].indices(rows)
            return _filled(host[start:stop], stop - start, fill)

        return jax.make_array_from_callback((rows, *host.shape[1:]), sharding, part)

    return _one_or_all([shared(host) for host in hosts])


def local_rows(mesh: Mesh, *arrays: Any, axis: str | None = None, fill: float = math.nan) -> Any:
    """Global arrays (n, ...) of rows of which each process passes only its own.

    A process may have more rows than another: each device has as many as the fullest needs, and
    the rest is ``fill``, at the end of the rows of each process; see `shard_rows`, which also says
    what is raised.
    """
    hosts: list[HostArray] = []

    def local() -> dict[str, Any]:
        hosts.extend(_hosts(arrays, fill))
        return _described(mesh, axis, fill, hosts)

    said = agree("local_rows", local)
    _check_alike(said, mesh)
    name = str(said[0]["axis"])
    devices = _devices_of_each(mesh, name)
    counts = [own["rows"] for own in said]
    each = max(-(-count // devices[i]) for i, count in enumerate(counts))
    if each == 0:
        raise ShapeError("no process passes a row. Fix: pass at least one.")
    lacking = any(count < each * devices[i] for i, count in enumerate(counts))
    _check_fill(hosts, fill, padded=lacking)
    sharding = NamedSharding(mesh, PartitionSpec(name))
    own, total = each * devices[jax.process_index()], each * mesh.shape[name]
    return _one_or_all(
        [
            jax.make_array_from_process_local_data(
                sharding, _filled(host, own, fill), (total, *host.shape[1:])
            )
            for host in hosts
        ]
    )


def gather(array: Any) -> HostArray:
    """The whole of an array as one of NumPy, on every process; all must call."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _hosts(arrays: tuple[Any, ...], fill: float) -> list[HostArray]:
    """The arrays as ones of NumPy, in the precision of this process."""
    if not arrays:
        raise ShapeError("no array was passed. Fix: pass at least one.")
    hosts = [_host(array, f"arrays[{i}]") for i, array in enumerate(arrays)]
    for i, host in enumerate(hosts):
        if len(host) != len(hosts[0]):
            raise ShapeError(
                f"`arrays[{i}]` has {len(host)} rows and `arrays[0]` {len(hosts[0])}, expected as "
                "many. Fix: pass arrays of other sizes in a call of their own."
            )
    return hosts


def _host(array: Any, name: str) -> HostArray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        raise InputError(
            f"`{name}` is shared between processes already, expected an array of this process. "
            "Fix: pass it to kernax.distributed.gather first."
        )
    try:
        host = np.asarray(array)
    except ValueError as error:
        raise ShapeError(
            f"`{name}` is a ragged list, expected rows of one length. Fix: pass an array."
        ) from error
    if host.dtype.kind not in "biuf":
        raise DTypeError(f"`{name}` has dtype {host.dtype}. Fix: pass real numbers.")
    if host.ndim == 0:
        raise ShapeError(f"`{name}` is one number, expected (n, ...). Fix: pass a row per point.")
    return rounded(host, name)


def _described(mesh: Mesh, axis: str | None, fill: float, hosts: list[HostArray]) -> dict[str, Any]:
    names = tuple(mesh.axis_names)
    name = names[0] if axis is None and len(names) == 1 else axis
    if name not in names:
        raise ParameterError(
            f"`axis` is {axis!r}, and the mesh has the axes {names}. Fix: name one of them."
        )
    ids = [device.id for device in mesh.devices.flat]
    return {
        "axis": name,
        "mesh": f"{dict(mesh.shape)} of the devices {ids}",
        "fill": repr(float(fill)),
        "dtypes": [host.dtype.name for host in hosts],
        "shapes": [list(host.shape[1:]) for host in hosts],
        "rows": len(hosts[0]),
    }


def _check_alike(said: list[dict[str, Any]], mesh: Mesh) -> None:
    """All processes see the same reports, and raise the same."""
    first, owners = said[0], {device.process_index for device in mesh.devices.flat}
    for i, other in enumerate(said):
        for word in ("axis", "mesh", "fill"):
            if other[word] != first[word]:
                raise InputError(
                    f"`{word}` is {other[word]} on process {i} and {first[word]} on process 0, "
                    "expected the same on every process. Fix: build it alike everywhere."
                )
        if len(other["dtypes"]) != len(first["dtypes"]):
            raise ShapeError(
                f"process {i} passes {len(other['dtypes'])} arrays and process 0 "
                f"{len(first['dtypes'])}, expected as many. Fix: pass the same arrays everywhere."
            )
        for j, dtype in enumerate(first["dtypes"]):
            if other["dtypes"][j] != dtype:
                raise DTypeError(
                    f"`arrays[{j}]` is {other['dtypes'][j]} on process {i} and {dtype} on process "
                    f"0, expected one dtype. Fix: pass arrays[{j}].astype('{dtype}') everywhere."
                )
            shapes = [tuple(one["shapes"][j]) for one in (other, first)]
            if shapes[0] != shapes[1]:
                raise ShapeError(
                    f"rows of `arrays[{j}]` have shape {shapes[0]} on process {i} and {shapes[1]} "
                    "on process 0, expected the same. Fix: pass equally many columns."
                )
    idle = set(range(len(said))) - owners
    if idle:
        raise ParameterError(
            f"process {min(idle)} has no device in the mesh. Fix: use a mesh from row_mesh()."
        )


def _check_whole(said: list[dict[str, Any]]) -> None:
    for i, other in enumerate(said):
        if other["rows"] != said[0]["rows"]:
            raise ShapeError(
                f"the arrays have {other['rows']} rows on process {i} and {said[0]['rows']} on "
                "process 0, expected the same arrays. Fix: use local_rows where each process has "
                "rows of its own."
            )
        for j, content in enumerate(said[0]["contents"]):
            if other["contents"][j] != content:
                raise InputError(
                    f"`arrays[{j}]` holds other numbers on process {i} than on process 0, expected "
                    "the same. Fix: seed random data alike, or use local_rows where each process "
                    "has rows of its own."
                )


def _check_fill(hosts: list[HostArray], fill: float, *, padded: bool) -> None:
    for i, host in enumerate(hosts):
        if padded and host.dtype.kind in "iu" and not float(fill).is_integer():
            raise DTypeError(
                f"`arrays[{i}]` is {host.dtype}, which cannot hold the {fill} of rows of padding. "
                f"Fix: pass arrays[{i}].astype(float), or fill=0."
            )


def _checksum(host: HostArray) -> int:
    return zlib.crc32(np.ascontiguousarray(host).reshape(-1).view(np.uint8).data)


def _padded(rows: int, devices: int) -> int:
    return -(-rows // devices) * devices


def _filled(rows: HostArray, count: int, fill: float) -> HostArray:
    """That many rows: these, and ``fill`` below."""
    if len(rows) == count:
        return rows
    value: Any = False if rows.dtype == bool else fill
    whole = np.full((count, *rows.shape[1:]), value, rows.dtype)
    whole[: len(rows)] = rows
    return whole


def _devices_of_each(mesh: Mesh, axis: str) -> list[int]:
    """How many places along the axis each process has for itself."""
    places = np.moveaxis(mesh.devices, mesh.axis_names.index(axis), 0)
    found = [0] * jax.process_count()
    for place in places.reshape(len(places), -1):
        owners = {device.process_index for device in place}
        if len(owners) > 1:
            raise ParameterError(
                f"the processes {sorted(owners)} share rows along '{axis}' of the mesh, expected "
                "one for each row. Fix: use shard_rows, or a mesh from row_mesh()."
            )
        found[owners.pop()] += 1
    return found


def _one_or_all(arrays: list[jax.Array]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)
