"""A page of the documentation, taken apart: its sections, their prose, their tables, and the blocks in between."""

import re
from dataclasses import dataclass, field
from functools import cached_property

import yaml

# A block that is a file of its own begins with a comment that is its name, as in `# shop.py`.
FILE_NAME = re.compile(r"# ([\w-]+\.\w+)\n")


class Yaml12(yaml.SafeLoader):
    """Reads YAML as service files have it, where only `true` and `false` are booleans, so that `on` may be a key."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def read_yaml(text):
    return yaml.load(text, Yaml12)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int

    @property
    def file_name(self):
        found = FILE_NAME.match(self.text)
        return found and found[1]

    @cached_property
    def value(self):
        """What a block of YAML holds."""
        return read_yaml(self.text)

    @property
    def is_service(self):
        return self.language == "yaml" and "service" in self.value

    @property
    def commands(self):
        """The commands of a console and what the page shows that they print."""
        return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE)


@dataclass
class Section:
    """What stands under one heading. The blocks are its own; `whole_prose` is that of its subsections as well."""

    title: str
    level: int
    lines: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    inner: list = field(default_factory=list)

    @property
    def whole_prose(self):
        return "\n".join([*self.lines, *(f"{one.title}\n{one.whole_prose}" for one in self.inner)])

    @property
    def files(self):
        """The files that the section gives, by name."""
        return {block.file_name: block.text for block in self.blocks if block.file_name}

    @property
    def rows(self):
        """The rows of all tables, as lists of cells; of the subsections as well."""
        cells = re.findall(r"^\| (.*) \|$", self.whole_prose, re.MULTILINE)
        return [re.split(r" ?\| ", row) for row in cells]


def read_page(path):
    """Every section of a page, in order; what stands before the first `##` belongs to the page's title."""
    sections, stack, fence = [], [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if fence is not None:
            if line == "```":
                language, first, lines = fence
                sections[-1].blocks.append(Block(language, "".join(f"{one}\n" for one in lines), first))
                fence = None
            else:
                fence[2].append(line)
        elif line.startswith("```"):
            fence = (line.removeprefix("```"), number + 1, [])
        elif heading := re.fullmatch(r"(#+) (.*)", line):
            section = Section(heading[2].replace("`", ""), len(heading[1]))
            while stack and stack[-1].level >= section.level:
                stack.pop()
            # The title of the page holds all of it, which would make it the place of everything.
            if stack and stack[-1].level > 1:
                stack[-1].inner.append(section)
            stack.append(section)
            sections.append(section)
        else:
            sections[-1].lines.append(line)
    assert fence is None, f"a block of {path.name} has no end"
    return sections
