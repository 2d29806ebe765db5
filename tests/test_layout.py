"""Rules of the layout that a reader can rely on, because they are checked here."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Who may import whom, among the project's own crates.
MAY_IMPORT = {
    "evener-core": set(),
    "evener-protocol": {"evener-core"},
    "evener-supervisor": {"evener-core", "evener-protocol"},
    "evener-doors": {"evener-core", "evener-protocol"},
    "evener-worker": {"evener-protocol"},
    "evener-engine": {"evener-core", "evener-protocol", "evener-supervisor", "evener-doors", "evener-worker"},
    "evener-simulation": {"evener-core", "evener-protocol"},
    "evener-sdk": {"evener-protocol"},
    "evener-bridge": {"evener-sdk"},
    "evener": {"evener-engine", "evener-sdk"},
    "embed-rust": {"evener-engine"},
    "frames-rust": {"evener-worker"},
}


def packages() -> dict[str, dict]:
    """The crates of the workspace, by name."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline", "--locked"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return {package["name"]: package for package in metadata["packages"]}


def test_crates_import_only_what_the_layout_allows() -> None:
    """Each crate depends on no other crate of ours than the table says, for tests as well."""
    found = packages()
    assert found.keys() == MAY_IMPORT.keys()
    for name, package in found.items():
        ours = {dependency["name"] for dependency in package["dependencies"]} & found.keys()
        assert ours <= MAY_IMPORT[name], name


def test_the_core_depends_on_nothing() -> None:
    """What runs of the core is the standard library and the core."""
    dependencies = packages()["evener-core"]["dependencies"]
    assert [dependency["name"] for dependency in dependencies if dependency["kind"] is None] == []


def test_each_error_code_has_a_page_and_each_page_a_code() -> None:
    """The list of codes in core and the pages in docs/errors are the same."""
    source = (ROOT / "crates/core/src/problem.rs").read_text()
    codes = set(re.findall(r'^ +\w+ = "([a-z-]+)", \d{3}, ', source, re.MULTILINE))
    pages = {page.stem for page in (ROOT / "docs/errors").glob("*.md")} - {"README"}
    assert len(codes) > 20
    assert pages == codes


def test_the_versions_are_the_same_everywhere() -> None:
    """Workspace, Python package and changelog name one version."""
    version = packages()["evener"]["version"]
    assert f'version = "{version}"' in (ROOT / "python/pyproject.toml").read_text()
    assert f'__version__ = "{version}"' in (ROOT / "python/src/evener/_worker.py").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def documents() -> list[Path]:
    """All Markdown files of the project, and none of what was built or installed."""
    built = {"target", ".venv", ".git"}
    return sorted(page for page in ROOT.glob("**/*.md") if not built & set(page.relative_to(ROOT).parts))


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links in the documents name files that exist."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
