"""What holds for all of the source: layers, names, documentation, sizes, and no side effects."""

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import pytest

import kernax as kx
from tests.table import CASES

ROOT = Path(kx.__file__).parent
PROJECT = Path(__file__).parent.parent
SOURCES = sorted(ROOT.rglob("*.py"))

# Imports point from the right to the left only.
LAYERS = (
    ("_errors", "_typing"),
    ("_parameters", "_padding", "_nodes"),
    ("_inputs", "_module", "_memory"),
    ("kernels",),
    ("transforms",),
    ("linalg", "calculus"),
    ("matrixfree",),
    ("distributed",),
    ("gp",),
    ("io",),
    ("checks",),
    ("plot",),
    ("cli",),
    ("__init__", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_layers(path: Path):
    """(line, layer) of each import of this package in a file, wherever in the file it is."""
    package = ("kernax", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            whole = (*above, *(node.module.split(".") if node.module else ()))
            for alias in node.names if whole == ("kernax",) else ():
                yield node.lineno, alias.name
            if len(whole) > 1 and whole[0] == "kernax":
                yield node.lineno, whole[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("kernax"), f"{path}:{node.lineno} is absolute"


def test_imports_point_one_way():
    assert {layer(path) for path in SOURCES} == set(RANK), "a new module needs a layer"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path in SOURCES
        for line, target in imported_layers(path)
        if target in RANK and RANK[target] > RANK[layer(path)]
    ]
    assert wrong == []
    # The check sees the imports there are.
    assert ("gp", "kernels") in {(layer(p), t) for p in SOURCES for _, t in imported_layers(p)}


def test_importing_changes_nothing():
    script = """
import json, sys, jax, equinox
before = dict(jax.config.values)
import kernax
changed = [name for name, value in jax.config.values.items() if before.get(name) != value]
heavy = [name for name in ("optax", "optimistix", "numpyro", "matplotlib", "sklearn", "tqdm",
         "scipy.optimize", "tinygp") if name in sys.modules]
print(json.dumps([changed, heavy, jax.numpy.ones(1).dtype.name]))
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[], [], "float32"]


def test_every_public_name_is_exported_and_documented():
    public = {
        name
        for name, value in vars(kx).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(kx.__all__)
    for name in kx.__all__:
        value = getattr(kx, name)
        assert inspect.getdoc(value), f"{name} has no docstring"
        members = vars(value).items() if inspect.isclass(value) else ()
        for member, function in members:
            inherits = any(hasattr(parent, member) for parent in value.__mro__[1:])
            if inspect.isfunction(function) and not member.startswith("_") and not inherits:
                assert function.__doc__, f"{name}.{member} has no docstring"


@pytest.mark.parametrize(
    "name",
    [
        "AbstractKernel", "StaticAbstractKernel", "WrapperKernel", "SEKernel", "RBFKernel",
        "Matern12Kernel", "Matern32Kernel", "Matern52Kernel", "RationalQuadraticKernel",
        "PeriodicKernel", "ConstantKernel", "LinearKernel", "WhiteNoiseKernel", "SumKernel",
        "ProductKernel", "NegKernel", "PowerKernel", "ActiveDimsKernel", "ARDKernel",
        "GaussianProcess", "ZeroMean", "ConstantMean", "LinearMean", "fit", "mvn_log_density",
        "Dense", "positive", "precision", "ShapeError", "DTypeError", "InputError",
        "ParameterError", "NotPSDError", "ConvergenceError", "FormatError", "ResourceError",
        "PrecisionWarning", "NumericalWarning", "ConvergenceWarning",
    ],
)  # fmt: skip
def test_the_promised_names_are_there(name):
    assert name in kx.__all__


def test_a_docstring_names_every_parameter():
    missing = [
        f"{name}: {parameter}"
        for name in ("fit", "GaussianProcess", "mvn_log_density")
        for parameter in inspect.signature(getattr(kx, name)).parameters
        if parameter not in inspect.getdoc(getattr(kx, name))
        and parameter not in ("gp", "X", "y", "max_steps", "progress", "mask")
    ]
    assert missing == []


def test_errors_are_the_builtin_ones_too():
    builtins = {
        kx.ShapeError: ValueError,
        kx.DTypeError: TypeError,
        kx.InputError: ValueError,
        kx.ParameterError: ValueError,
        kx.NotPSDError: __import__("numpy").linalg.LinAlgError,
        kx.ConvergenceError: RuntimeError,
        kx.ClusterError: RuntimeError,
        kx.FormatError: ValueError,
        kx.ResourceError: MemoryError,
        kx.MissingExtraError: ImportError,
    }
    for error, builtin in builtins.items():
        assert issubclass(error, builtin)
        assert issubclass(error, kx.KernaxError)


def test_a_missing_extra_names_its_remedy():
    error = kx.MissingExtraError("drawing", "matplotlib", "plot")
    assert "pip install 'kernax-gp[plot]'" in str(error)


def test_no_file_is_too_long():
    files = [*SOURCES, *Path(__file__).parent.rglob("*.py"), *PROJECT.glob("benchmarks/*.py")]
    assert [f"{f}: {n}" for f in files if (n := len(f.read_text().splitlines())) > 400] == []


def test_static_fields_are_hashable_and_compare_to_a_bool():
    instances = [case.kernel for case in CASES.values()]
    instances += [kx.GaussianProcess(kx.SEKernel(), 0.1, kx.LinearMean([1.0], 0.0), kx.Dense())]
    modules = [
        node
        for instance in instances
        for node in jax.tree.leaves(
            instance, is_leaf=lambda n, top=instance: isinstance(n, eqx.Module) and n is not top
        )
        if isinstance(node, eqx.Module)
    ] + instances
    for module in modules:
        hash(jax.tree.structure(module))
        for field in dataclasses.fields(module):
            value = getattr(module, field.name)
            if field.metadata.get("static", False):
                hash(value)
                assert type(value == value) is bool
                assert not eqx.is_array(value)


def test_static_fields_are_not_declared_as_arrays():
    found = [
        ast.unparse(node.annotation)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AnnAssign) and "static=True" in ast.unparse(node)
    ]
    assert found
    assert not [text for text in found if re.search("Array|ndarray|Parameter", text)]


PRODUCTS = {"matmul", "einsum", "dot", "tensordot", "dot_general", "vdot"}
BANNED = {
    "det": "determinants lose what a factorisation keeps",
    "slogdet": "the factorisation has the log determinant",
    "inv": "inverses lose what a factorisation keeps",
    "eigh": "its derivative is NaN where eigenvalues coincide",
    "svd": "its derivative is NaN where singular values coincide",
    "pure_callback": "it can wait for itself",
    "filter_jit": "it costs four times the dispatch of a plain jit",
}


# The quadrature of a Lanczos process needs eigenvectors, and is never differentiated.
ALLOWED = {("matrixfree/_log_determinant.py", "eigh")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_source_does_without(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", "it hides the types from run-time checks"
        if isinstance(node, ast.BinOp):
            assert not isinstance(node.op, ast.MatMult), "`@` has no precision='highest'"
        if isinstance(node, ast.Attribute):
            allowed = (path.relative_to(ROOT).as_posix(), node.attr) in ALLOWED
            assert allowed or node.attr not in BANNED, f"line {node.lineno}: {BANNED[node.attr]}"
            # A factorisation has a `solve`; a library's is one for matrices without structure.
            general = node.attr == "solve" and ast.unparse(node.value).endswith("linalg")
            assert not general, f"line {node.lineno}: there are factorisations"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            if node.func.attr in PRODUCTS and called.startswith(("jnp.", "jax.")):
                given = {keyword.arg for keyword in node.keywords}
                assert "precision" in given, f"line {node.lineno}: {called} without precision"
            if called == "jax.config.update":
                assert layer(path) == "cli", "only the command line sets anything"
