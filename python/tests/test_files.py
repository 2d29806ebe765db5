"""What a worker says about the files that it has loaded."""

from __future__ import annotations

from pathlib import Path

from conftest import SOURCES, Worker


def files(worker):
    found = worker.ready().extension["files"]
    assert found == sorted(set(found))
    return found


def test_modules_from_under_the_folder_are_named(start, tmp_path):
    package = tmp_path / "package" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("from . import other\n")
    (tmp_path / "package" / "other.py").write_text("")
    (tmp_path / "package" / "unused.py").write_text("")
    (package / "deep.py").write_text("")
    source = "import json, package, package.inner.deep\ndef f(value):\n  import package.unused\n  return value\n"
    worker = start(source, ready=False)
    names = ["m.py", "package/__init__.py", "package/inner/deep.py", "package/other.py"]
    assert files(worker) == [str(tmp_path / name) for name in names]


def test_neither_the_runtime_nor_what_lies_elsewhere_is(start, tmp_path):
    # The runtime's own folder as that of a service.
    worker = Worker(SOURCES / "evener", "bisect:bisect")
    try:
        assert files(worker) == []
    finally:
        worker.leave()
    # A neighbour whose name begins in the same way.
    neighbour = tmp_path.with_name(tmp_path.name + "-other")
    neighbour.mkdir()
    (neighbour / "near.py").write_text("")
    worker = start(f"import sys\nsys.path.append({str(neighbour)!r})\nimport near\nf = print\n", ready=False)
    assert files(worker) == [str(tmp_path / "m.py")]


def test_there_are_at_most_a_thousand_and_installed_ones_come_last(start, tmp_path):
    installed = tmp_path / "a" / "site-packages"
    installed.mkdir(parents=True)
    for number in range(700):
        (installed / f"installed{number}.py").write_text("")
        (tmp_path / f"own{number}.py").write_text("")
    source = """
import sys
sys.path.append(sys.path[0] + "/a/site-packages")
for number in range(700):
    __import__(f"installed{number}")
    __import__(f"own{number}")
f = print
"""
    found = start(source, ready=False).ready().extension["files"]
    assert len(found) == len(set(found)) == 1000
    assert [Path(path).parent for path in found] == [tmp_path] * 701 + [installed] * 299


def test_long_names_fit(start, tmp_path):
    long = tmp_path.joinpath(*["x" * 200] * 5)
    long.mkdir(parents=True)
    for number in range(500):
        (long / f"m{number}.py").write_text("")
    source = f"""
import sys
sys.path.append({str(long)!r})
for number in range(500): __import__(f"m{{number}}")
f = print
"""
    found = start(source, ready=False).ready().extension["files"]
    assert 50 < len(found) < 200


def test_odd_modules_do_no_harm(start, tmp_path):
    source = """
import sys, types
class Odd(types.ModuleType):
    def __getattr__(self, name): raise RuntimeError("no")
sys.modules["odd"] = Odd("odd")
sys.modules["none"] = None
sys.modules["seven"] = types.ModuleType("seven")
sys.modules["seven"].__file__ = 7
sys.modules["lone"] = types.ModuleType("lone")
sys.modules["lone"].__file__ = sys.path[0] + "/\\udcff.py"
f = print
"""
    assert files(start(source, ready=False)) == [str(tmp_path / "m.py")]


def test_function_workers_name_none(caller):
    assert "files" not in caller(ready=False).ready().extension
