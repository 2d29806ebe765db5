"""Stages under decorators: what is called is the wrapper, and its own parameters count."""

APP = """
import functools
import evener

def injects(function):
    @functools.wraps(function)
    def wrapper(value):
        return function(value, "db")
    return wrapper

def injects_first(function):
    @functools.wraps(function)
    def wrapper(value):
        return function("db", value)
    return wrapper

def with_context(function):
    @functools.wraps(function)
    def wrapper(value, ctx):
        return f"{function(value)} {ctx.tries}"
    return wrapper

def passes_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

def keyword(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, db="db", **kwargs)
    return wrapper

def injects_async(function):
    @functools.wraps(function)
    async def wrapper(value):
        return await function(value, "db")
    return wrapper

class Decorator:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
    def __call__(self, value):
        return self.function(value, "db")

class PassesOn:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
    def __call__(self, *args):
        return self.function(*args)

@injects
def injected(value, database): return f"{value} {database}"

@injects_first
def injected_first(database, value): return f"{value} {database}"

@with_context
def added(value): return value

@passes_on
def passed(value, ctx): return f"{value} {ctx.tries}"

@passes_on
def passed_alone(value): return value

@passes_on
@injects
def passed_to_injected(value, database): return f"{value} {database}"

@keyword
def named(value, *, db): return f"{value} {db}"

@injects
def three(value, database, more="more"): return f"{value} {database} {more}"

@functools.wraps(three)
def four(value): return three(value) + " four"

@Decorator
def by_class(value, database): return f"{value} {database}"

@PassesOn
def by_class_passed(value, ctx): return f"{value} {ctx.tries}"

partial = functools.partial(injected)
bound = functools.partial(lambda first, value: f"{value} {first}", "db")

class Stage:
    def __call__(self, value): return f"{value} stage"

def method(function):
    @functools.wraps(function)
    def wrapper(self, value):
        return function(self, value, "db")
    return wrapper

class Decorated:
    @method
    def __call__(self, value, database): return f"{value} {database}"

@injects_async
async def coroutine(value, database): return f"{value} {database}"

@injects
def batched(values, database): return [f"{value} {database}" for value in values]

"""
EXPECTED = {
    "injected": "v db",
    "injected_first": "v db",
    "added": "v 1",
    "passed": "v 1",
    "passed_alone": "v",
    "passed_to_injected": "v db",
    "named": "v db",
    "three": "v db more",
    "four": "v db more four",
    "by_class": "v db",
    "by_class_passed": "v 1",
    "partial": "v db",
    "bound": "v db",
    "Stage": "v stage",
    "Decorated": "v db",
}
WAYS = {
    "threads": ("injected", "threads: 4", "v db"),
    "threads_added": ("added", "threads: 4", "v 1"),
    "coroutine": ("coroutine", "", "v db"),
    "concurrency": ("coroutine", "concurrency: 10", "v db"),
    "batch": ("batched", "batch: {max: 4, wait: 1ms}", "v db"),
}


def test_the_wrapper_is_what_is_called(node):
    stages = [f'  {name}: {{python: "app:{name}"}}' for name in EXPECTED]
    stages += [
        f'  {name}: {{python: "app:{target}"{", " + more if more else ""}}}' for name, (target, more, _) in WAYS.items()
    ]
    names = [*EXPECTED, *WAYS]
    routes = [f"  - {{path: /{name}, pipeline: {name}, decode: text}}" for name in names]
    service = "debug: true\nstages:\n" + "\n".join(stages) + "\nroutes:\n" + "\n".join(routes) + "\n"
    served = node(service, app=APP)
    wanted = {**EXPECTED, **{name: expected for name, (_, _, expected) in WAYS.items()}}
    came = {name: served.post(f"/{name}", "v", "text/plain").text for name in names}
    assert came == wanted
