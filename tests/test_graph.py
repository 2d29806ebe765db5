"""`evener graph`: what a service file describes is in the drawing, once in Mermaid's words and once in Graphviz's."""

import re
import subprocess
from dataclasses import dataclass, field

import pytest

from harness import run_evener
from harness.node import REPOSITORY, binary, environment

SERVICE = r"""
service: drawn
stages:
  text: {jq: ".query.text[0]"}
  sum: {python: "app.sums:Sum", workers: 4}
  square: {python: "app:square"}
  item: {python: "app:item", workers: auto}
  never: {python: "app:never", workers: 0}
  last: {jq: "{all: .}"}
pipelines:
  inner: [item, {scatter: {deep: sum, deeper: [square, {each: ".[] | .x", do: item, max_in_flight: 7}]}}]
  whole:
    - text
    - scatter: {sum: sum, in: inner}
      timeout: 1500ms
      on_failure: collect
      fallback: {none: true}
      fallback_on: [timeout, lost]
    - last
  by_goto: [never]
routes:
  - {path: "/all/{id}", methods: [GET, POST], pipeline: whole, timeout: 10s, fallback: {sorry: 1}}
  - {path: /again, pipeline: whole}
  - {path: /square, pipeline: square}
functions:
  default: {}
  models: {workers: 2}
"""

# What Mermaid, Graphviz, Markdown, HTML or a terminal could take for something else.
HOSTILE = r"""
service: end
stages:
  end: {jq: "\"</b>`x`\\n\" + \"%%{init: {}}%%\" # ; [a](http://b) \u202e"}
  restyle: {python: "mod:f"}
  __init__: {jq: "\"&quot;#quot;\\\\N\""}
  subgraph: {python: "a:b"}
pipelines:
  graph: [end, {scatter: {o: __init__, click: restyle, default: subgraph}, fallback: "\"|]-->\"\n<script>"}]
routes:
  - {path: "/{*rest}", pipeline: graph, fallback: "*|\"*"}
"""


@dataclass
class Drawn:
    """A drawing as it was read: labels by node, edges as (from, to, dashed, label), members by group."""

    nodes: dict = field(default_factory=dict)
    edges: list = field(default_factory=list)
    groups: dict = field(default_factory=dict)

    def one(self, start, among=None):
        """The one node whose label begins so."""
        found = [name for name, label in self.nodes.items() if label.split("\n")[0] == start]
        found = [name for name in found if among is None or name in among]
        assert len(found) == 1, (start, found)
        return found[0]

    def after(self, name):
        return [(self.nodes[to].split("\n")[0], dashed, label) for of, to, dashed, label in self.edges if of == name]


def read(lines, node, group, end, edge, plain):
    """Reads a drawing line by line. Each line has to be one of the four things."""
    drawn, open_groups = Drawn(), []
    for line in lines:
        if found := re.fullmatch(edge, line):
            dashed = found["dashed"] is not None
            drawn.edges.append((found["of"], found["to"], dashed, plain(found["label"] or "")))
        elif found := re.fullmatch(group, line):
            if open_groups:
                drawn.groups[open_groups[-1]].append("g" + found["id"])
            open_groups.append("g" + found["id"])
            drawn.nodes[open_groups[-1]] = "group " + plain(found["label"])
            drawn.groups[open_groups[-1]] = []
        elif line == end:
            open_groups.pop()
        else:
            found = re.fullmatch(node, line)
            assert found, line
            drawn.nodes[found["id"]] = plain(found["label"])
            if open_groups:
                drawn.groups[open_groups[-1]].append(found["id"])
    assert open_groups == []
    return drawn


def read_mermaid(text, title):
    lines = text.split("\n")
    assert lines[:4] == ["---", f'title: "{title}"', "---", "flowchart LR"]
    assert lines[-1] == ""
    label = r'"(?P<label>(?:<br/>|[^"<>&`\\%$~*^@])*)"'
    shape = r"(?:\(\[|\[/|\[\(|\[\[|\[|\(|\{\{)" + label + r"(?:\]\)|/\]|\)\]|\]\]|\]|\)|\}\})"

    def plain(text):
        return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), text.replace("<br/>", "\n"))

    return read(
        [line.strip() for line in lines[4:-1]],
        r"(?P<id>n\d+)" + shape,
        r"subgraph g(?P<id>\d+)\[" + label + r"\]",
        "end",
        r"(?P<of>n\d+) (?:-->|(?P<dashed>-\.->))(?:\|" + label + r"\|)? (?P<to>n\d+)",
        plain,
    )


def read_dot(text, title):
    lines = [line.strip() for line in text.split("\n")]
    assert lines[:3] == [f'digraph "{title}" {{', f'label="{title}";', "labelloc=t;"]
    assert lines[3:5] == ["rankdir=LR;", "node [shape=box];"]
    assert lines[-2:] == ["}", ""]
    label = r'"(?P<label>(?:[^"\\]|\\.)*)"'

    def plain(text):
        text = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)
        assert not re.search(r"&(?!amp;)", text)
        return text.replace("&amp;", "&")

    # The label of a group is a line of its own.
    joined = re.sub(r"subgraph cluster_(\d+) \{\nlabel=", r"subgraph cluster_\1 {label=", "\n".join(lines[5:-2]))
    return read(
        joined.split("\n"),
        r"(?P<id>n\d+) \[label=" + label + r"(?:, \w+=\w+)?\];",
        r"subgraph cluster_(?P<id>\d+) \{label=" + label + ";",
        "}",
        r"(?P<of>n\d+) -> (?P<to>n\d+)(?: \[(?:label=" + label + r"(?:, )?)?(?P<dashed>style=dashed)?\])?;",
        plain,
    )


@pytest.fixture
def draw(tmp_path):
    """Draws the text of a service file in both ways, which must come to the same."""

    def drawn(text):
        file = tmp_path / "service.yaml"
        file.write_text(text)
        title = re.search(r"^service: ([\w-]+)$", text, re.MULTILINE)[1]
        mermaid, dot = (run_evener("graph", file, *more) for more in ([], ["--dot"]))
        assert (mermaid.returncode, mermaid.stderr, dot.returncode, dot.stderr) == (0, "", 0, "")
        read_ones = read_mermaid(mermaid.stdout, title), read_dot(dot.stdout, title)
        assert read_ones[0] == read_ones[1]
        return read_ones[0]

    return drawn


def test_routes_stages_and_answers(draw):
    drawn = draw(SERVICE)
    client = drawn.one("client")
    assert [name for name, _, _ in drawn.after(client)] == [
        "GET, POST /all/{id}",
        "any method /again",
        "any method /square",
    ]
    assert drawn.nodes[drawn.one("GET, POST /all/{id}")].endswith("\nwithin 10s")
    assert drawn.after(drawn.one("GET, POST /all/{id}")) == [
        ("text", False, ""),
        ("back to the client", True, 'fallback on timeout: {"sorry":1}'),
    ]
    assert drawn.after(drawn.one("any method /again")) == [("text", False, "")]
    assert drawn.after(drawn.one("last")) == [("back to the client", False, "answer")]
    whole = next(name for name, label in drawn.nodes.items() if label == "group whole")
    alone = [name for name, label in drawn.nodes.items() if label.startswith("square\n")]
    alone = [name for name in alone if not any(name in members for members in drawn.groups.values())]
    assert [drawn.after(name) for name in alone] == [[("back to the client", False, "answer")]]
    assert drawn.nodes[drawn.one("text", drawn.groups[whole])] == "text\njq .query.text[0]\nin the node"
    assert drawn.nodes[drawn.one("sum", drawn.groups[whole])] == "sum\npython app.sums:Sum\n4 workers"
    assert drawn.nodes[alone[0]] == "square\npython app:square\n1 worker"
    assert "item\npython app:item\na worker for each core" in drawn.nodes.values()
    # A pipeline that only a goto or another pipeline leads to is drawn as well.
    assert "group by_goto (no route)" in drawn.nodes.values()
    assert drawn.nodes[drawn.one("never")] == "never\npython app:never\nno workers"


GOTOS = """
service: gotos
stages:
  first: {python: "app:first", goto: [last, first]}
  middle: {python: "app:middle", goto: [first, aside, whole]}
  last: {jq: .}
  aside: {python: "app:aside", goto: [aside, beyond]}
  beyond: {python: "app:beyond", goto: []}
pipelines: {whole: [first, middle, last]}
routes: [{path: /, pipeline: whole}]
"""


def test_gotos_that_stages_declare(draw):
    drawn = draw(GOTOS)
    goto = (True, "goto")
    # Within its path a goto leads to the place there, elsewhere to a path of its own.
    assert drawn.after(drawn.one("first")) == [("middle", False, ""), ("last", *goto), ("first", *goto)]
    after = drawn.after(drawn.one("middle"))
    assert after == [("last", False, ""), ("first", *goto), ("aside", *goto), ("first", *goto)]
    assert sorted(drawn.after(drawn.one("aside"))) == sorted(
        [("aside", *goto), ("back to the client", False, "answer"), ("beyond", *goto)]
    )
    assert drawn.after(drawn.one("beyond")) == [("back to the client", False, "answer")]


def test_branches_within_branches(draw):
    drawn = draw(SERVICE)
    groups = {drawn.nodes[name]: members for name, members in drawn.groups.items()}
    whole, inner = groups["group whole"], groups["group inner"]
    assert any(drawn.nodes[name] == "group inner" for name in whole)
    fork, deep_fork = drawn.one("scatter", whole), drawn.one("scatter", inner)
    assert drawn.after(drawn.one("text")) == [("scatter", False, "")]
    assert drawn.after(fork) == [("sum", False, "sum"), ("item", False, "in")]
    assert drawn.after(deep_fork) == [("sum", False, "deep"), ("square", False, "deeper")]
    gather = drawn.one("gather", whole)
    assert drawn.nodes[gather] == ('gather\nwithin 1.5s\nfailures as well\nfallback on timeout, lost: {"none":true}')
    assert drawn.after(gather) == [("last", False, "")]
    # Dashed, as there are as many of it as the list has elements.
    each = drawn.one("each", inner)
    assert drawn.nodes[each] == "each\n7 at a time"
    assert drawn.after(each) == [("item", True, "each .[] | .x")]
    dashed = [(drawn.nodes[of].split("\n")[0], drawn.nodes[to]) for of, to, dashed, _ in drawn.edges if dashed]
    assert ("item", "gather") in dashed
    # Two gathers in there: that of the each goes on to that of the scatter, and that one to the outer.
    after = {name: drawn.after(name) for name in inner if drawn.nodes[name] == "gather"}
    assert list(after.values()) == [[("gather", False, "")]] * 2
    assert sum((of in after) and to == gather for of, to, _, _ in drawn.edges) == 1


def test_triggers(draw):
    drawn = draw("""
service: drawn
stages: {work: {python: "a:b"}, tidy: {python: "a:c"}}
pipelines: {nightly: [work]}
triggers:
  - {name: night, cron: "30 2 * * *", timezone: Europe/Berlin, pipeline: nightly}
  - {every: 90s, pipeline: tidy}
  - {name: end, on: shutdown, pipeline: tidy}
routes: []
""")
    assert drawn.nodes[drawn.one("trigger night")] == "trigger night\ncron 30 2 * * * Europe/Berlin"
    assert drawn.after(drawn.one("trigger night")) == [("work", False, "")]
    assert drawn.nodes[drawn.one("trigger end")] == "trigger end\nbefore the end"
    assert drawn.after(drawn.one("trigger end")) == [("tidy", False, "")]
    assert [label for label in drawn.nodes.values() if label.endswith("\nevery 90s")]
    assert "group nightly" in drawn.nodes.values()
    # Nobody waits for an answer.
    assert drawn.after(drawn.one("work")) == drawn.after(drawn.one("tidy")) == []


def test_function_pools(draw):
    pools = ["default\na worker for each core", "models\n2 workers"]
    for text in (SERVICE, "service: drawn\nfunctions:\n  default: {}\n  models: {workers: 2}\n"):
        drawn = draw(text)
        group = next(name for name, label in drawn.nodes.items() if label == "group functions")
        assert [drawn.nodes[name] for name in drawn.groups[group]] == pools
        callers = drawn.one("callers of functions")
        assert drawn.after(callers) == [("default", False, "calls"), ("models", False, "calls")]
        assert all(drawn.after(pool) == [("callers of functions", True, "results")] for pool in drawn.groups[group])
        assert ("client" in drawn.nodes.values()) == (text is SERVICE)


def test_names_and_programs_stay_text(draw):
    drawn = draw(HOSTILE)
    labels = "\n".join([*drawn.nodes.values(), *(label for *_, label in drawn.edges)])
    for text in (
        'end\njq "</b>`x`\\n" + "%%{init: {}}%%" # ; [a](http://b) \u202e\n',
        '__init__\njq "&quot;#quot;\\\\N"\n',
        "restyle\npython mod:f\n",
        'fallback on timeout: "\\"|]-->\\"\\n<script>"',
        'fallback on timeout: "*|\\"*"',
        "any method /{*rest}",
    ):
        assert text in labels
    assert drawn.after(drawn.one("scatter")) == [
        ("__init__", False, "o"),
        ("restyle", False, "click"),
        ("subgraph", False, "default"),
    ]


def test_long_programs_are_cut(draw):
    long = " + ".join(['\\"\u00e9\\"'] * 100)
    drawn = draw(f'service: drawn\nstages:\n  long: {{jq: "{long}"}}\nroutes: [{{path: /, pipeline: long}}]\n')
    label = drawn.nodes[drawn.one("long")]
    assert re.fullmatch(r"long\njq .{60}…\nin the node", label)


def test_what_would_be_too_large_is_drawn_by_parts(draw):
    """Thirty pipelines, each with two branches through the one before: drawn in place that were 2 to the 30th."""
    pipelines = ["  p0: [work]", *(f"  p{n}: [{{scatter: {{a: p{n - 1}, b: p{n - 1}}}}}]" for n in range(1, 31))]
    text = 'service: drawn\nstages: {work: {python: "a:b"}}\nroutes: [{path: /, pipeline: p30}]\npipelines:\n'
    text += "\n".join(pipelines)
    drawn = draw(text)
    assert len(drawn.nodes) < 600
    groups = set(drawn.nodes.values())
    named = {label for label in groups if re.fullmatch(r"p\d+", label)}
    assert named
    # Whatever is only named somewhere is drawn somewhere.
    assert {f"group {name}" for name in named} <= groups
    assert not any("no route" in label for label in groups)


def test_the_same_file_gives_the_same_drawing(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text(SERVICE)
    for more in ([], ["--dot"]):
        assert len({run_evener("graph", file, *more).stdout for _ in range(3)}) == 1


@pytest.mark.parametrize(
    "example", sorted((REPOSITORY / "examples").glob("*/service.yaml")), ids=lambda p: p.parent.name
)
def test_every_example_is_drawn(draw, example, tmp_path):
    for program in re.findall(r"\[\./([\w-]+)", example.read_text()):
        # One that has to be compiled first.
        (tmp_path / program).touch(0o755)
    drawn = draw(example.read_text())
    assert drawn.one("client")
    assert drawn.one("back to the client")


@pytest.mark.parametrize(
    "text",
    [
        "service: 1\nfrob: 2\n",
        "service: [",
        SERVICE.replace("[never]", "[nevr]"),
        SERVICE.replace("[never]", "[by_goto]"),
        SERVICE.replace('".query.text[0]"', '".["'),
        "",
    ],
    ids=["keys", "yaml", "name", "cycle", "jq", "empty"],
)
def test_a_bad_file_is_reported_as_by_check(tmp_path, text):
    file = tmp_path / "service.yaml"
    file.write_text(text)
    checked = run_evener("check", file)
    assert checked.returncode == 2
    assert "error[" in checked.stderr
    for more in ([], ["--dot"]):
        done = run_evener("graph", file, *more)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", checked.stderr)


def test_output_that_takes_nothing_is_a_failure(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text(SERVICE)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [binary(), "graph", file],
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment(tmp_path), timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "the graph cannot be written" in done.stderr
