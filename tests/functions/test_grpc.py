"""The API as a client of any language meets it, well behaved or not."""

import contextlib
import hashlib
import os
import pickle
import random
import socket
import struct
import time

import grpc
import pytest
from grpc import StatusCode

from functions import tasks, work
from harness import Process, until
from harness.api import HEALTH, PYTHON, SERVICE, Api, arguments, body_of
from harness.client import Connection

SERVING, NOT_SERVING = 1, 2
WINDOW = 4096


@pytest.fixture(scope="module", params=["unix", "tcp"])
def engine(request, start_shared):
    listen = 'listen: {api: "127.0.0.1:0"}\n' if request.param == "tcp" else ""
    return start_shared(default="workers: 2, grace: 100ms", service=listen)


@pytest.fixture(scope="module")
def api(engine):
    with Api(engine.node) as made:
        yield made.describe()


@pytest.fixture
def session(api):
    with api.session() as made:
        yield made


@pytest.fixture
def asking(engine, api):
    """Makes other clients of the same node: `asking(token="wrong")`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Api(engine.node, described=api, **options))


def _status(call):
    with pytest.raises(grpc.RpcError) as caught:
        list(call()) if not isinstance(call, grpc.Call) else list(call)
    return caught.value.code(), caught.value.details()


def _idle(engine):
    until(lambda: not any(worker.busy for worker in engine.client.workers()), "idle workers")


# Who is let in


def test_the_health_service_needs_no_token(asking):
    open_ = asking(token="")
    assert open_.check() == SERVING
    assert open_.check(SERVICE) == SERVING
    assert _status(lambda: [open_.check("nonesuch")])[0] is StatusCode.NOT_FOUND
    watch = open_.watch()
    assert next(watch).status == SERVING
    watch.cancel()


def test_the_node_describes_itself_to_those_who_may_ask(api, asking):
    names = [service.name for service in api.reflect(list_services="*").list_services_response.service]
    assert {SERVICE, HEALTH} <= set(names)
    for stranger in (asking(token=""), asking(token="wrong")):
        assert _status(lambda stranger=stranger: [stranger.reflect(list_services="*")])[0] is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("token", ["", "wrong", "0" * 64])
def test_nothing_is_done_without_the_token(asking, token):
    stranger = asking(token=token)
    assert _status(lambda: stranger.workers())[0] is StatusCode.UNAUTHENTICATED
    assert _status(lambda: [stranger.cancel("x")])[0] is StatusCode.UNAUTHENTICATED
    assert _status(stranger.submit(abs, -1))[0] is StatusCode.UNAUTHENTICATED
    with stranger.session() as session:
        session.send(hello=stranger.message("Hello"))
        assert session.ended()[0] is StatusCode.UNAUTHENTICATED


def test_other_names_and_origins_are_refused(engine, asking):
    bad = [asking(origin="http://evil.example")]
    if not engine.client.url.startswith("unix:"):
        bad += [asking(authority="evil.example"), asking(authority="localhost.evil.example:80")]
    for one in bad:
        assert _status(lambda one=one: one.workers())[0] is StatusCode.PERMISSION_DENIED
        assert _status(lambda one=one: [one.check()])[0] is StatusCode.PERMISSION_DENIED
        with one.session() as session:
            assert session.ended()[0] is StatusCode.PERMISSION_DENIED


def test_an_unknown_method_is_told_so(api):
    for path in (f"/{SERVICE}/Nonesuch", "/nonesuch.Service/Method", "/x"):
        call = api.channel.unary_unary(path)
        assert _status(lambda call=call: [call(b"", metadata=api.metadata)])[0] is StatusCode.UNIMPLEMENTED


# Single calls


def _say(x):
    print("on standard output", x)
    os.write(2, b"on standard error")
    return x * x


def test_submit_tells_of_a_call_as_it_goes(engine, api):
    events = list(api.submit(_say, 7))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "id"
    assert kinds[-1] == "outcome"
    assert set(kinds[1:-1]) == {"printed"}
    for stream, text in ((1, b"on standard output 7\n"), (2, b"on standard error")):
        assert b"".join(e.printed.data for e in events[1:-1] if e.printed.stream == stream) == text
    outcome = events[-1].outcome
    assert pickle.loads(outcome.value) == 49
    assert outcome.worker in engine.pids()
    assert (outcome.tries, outcome.more) == (1, False)
    assert 0 < outcome.ran_ns < 10**10


def test_submit_tells_what_was_raised(api):
    outcome = list(api.submit(tasks.fail, "why"))[-1].outcome
    blob = pickle.loads(outcome.raised)
    assert blob["type"] == "functions.tasks.Failure"
    assert blob["message"] == "why"


def test_submit_tells_what_went_wrong(api):
    outcome = list(api.submit(os._exit, 3))[-1].outcome
    problem = outcome.problem
    assert (problem.code, problem.status, problem.stage, problem.retryable) == ("worker-died", 502, "default", True)
    assert "code 3" in problem.detail
    assert "code 3" in problem.certificate
    assert problem.request_id
    assert outcome.tries == 1


def test_a_value_of_any_size_comes_in_one_piece(api):
    outcome = list(api.submit(bytes, 9_000_000))[-1].outcome
    assert pickle.loads(outcome.value) == bytes(9_000_000)


def test_submit_refuses_what_is_no_call(api):
    submit = api.method(SERVICE, "Submit")
    function = api.function(abs)
    call = api.message("Call", function=function.hash, input=arguments(-1))
    for request in (
        api.message("SubmitRequest"),
        api.message("SubmitRequest", function=function),
        api.message("SubmitRequest", call=call),
        api.message("SubmitRequest", function=api.message("Function", hash=b"x" * 32, body=b"y"), call=call),
        api.message("SubmitRequest", function=api.message("Function", hash=b"short", body=b"y"), call=call),
        api.message("SubmitRequest", function=function, call=api.message("Call", function=function.hash, more=True)),
    ):
        assert _status(submit(request))[0] is StatusCode.INVALID_ARGUMENT


def test_cancel_takes_a_call_back_that_waits_and_kills_one_that_runs(engine, api, signs):
    held = [api.submit(tasks.wait, signs, "held") for _ in range(2)]
    ids = [next(call).id for call in held]
    signs.wait_notes("held", 2)
    waiting = api.submit(tasks.wait, signs, "waiting")
    assert api.cancel(next(waiting).id)
    assert [event.outcome.problem.code for event in waiting] == ["cancelled"]
    assert not api.cancel(ids[0])
    assert api.cancel(ids[1], kill=True)
    assert [event.outcome.problem.code for event in held[1]] == ["cancelled"]
    signs.open("go")
    assert pickle.loads(list(held[0])[-1].outcome.value) == "held"
    for id_ in (ids[0], "nonsense", ""):
        assert not api.cancel(id_)
        assert not api.cancel(id_, kill=True)
    assert signs.notes("waiting") == []
    _idle(engine)


def test_a_caller_that_goes_away_cancels_its_call(engine, api, signs):
    running = api.submit(tasks.wait, signs, "running")
    next(running)
    pid = Process.at(_worker_of(engine, signs, "running"))
    running.cancel()
    # Nobody can take its result any more.
    until(lambda: not pid.is_alive or not _busy(engine, pid.pid), "the end of the call")
    until(lambda: len(engine.client.workers()) == 2, "both workers")
    _idle(engine)


def _busy(engine, pid):
    return any(worker.busy for worker in engine.client.workers() if worker.pid == pid)


def _worker_of(engine, signs, name):
    signs.wait_notes(name)
    return until(lambda: [worker.pid for worker in engine.client.workers() if worker.busy], "a busy worker")[0]


def test_workers_are_listed_by_pool(engine, api):
    assert sorted(worker.pid for worker in api.workers()) == sorted(engine.pids())
    assert {worker.pool for worker in api.workers("default")} == {"default"}
    assert api.workers("nonesuch") == []


# Sessions


def test_a_session_begins_with_a_welcome(engine, session):
    welcome = session.hello()
    assert welcome.window == WINDOW
    assert welcome.window_bytes > 0
    assert welcome.node == engine.client.workers()[0].node
    assert [(pool.name, pool.python, pool.workers) for pool in welcome.pools] == [("default", PYTHON, 2)]


def test_many_calls_in_few_messages(session):
    session.hello()
    calls = [session.make(work.square, x) for x in range(3000)]
    session.send(calls=calls[:1500])
    session.send(calls=calls[1500:])
    until(lambda: len(session.outcomes()) == 3000, "all outcomes")
    values = [pickle.loads(session.outcomes()[call.number][1]) for call in calls]
    assert values == [x * x for x in range(3000)]
    assert len(session.replies) < 2500


def test_what_was_printed_comes_before_the_outcome(session):
    numbers = [session.submit(_say, x) for x in range(50)]
    for number in numbers:
        session.outcome(number)
    seen = set()
    for reply in session.replies:
        for piece in reply.printed:
            assert piece.number not in seen
        seen |= {outcome.number for outcome in reply.outcomes}
    for x, number in enumerate(numbers):
        assert session.printed(number) == f"on standard output {x}\n".encode()
        assert session.printed(number, 2) == b"on standard error"


def test_output_that_is_not_wanted_does_not_come(session):
    number = session.submit(_say, 1, discard_output=True)
    assert session.value(number) == 1
    assert session.printed(number) == session.printed(number, 2) == b""


def test_large_inputs_functions_and_values_go_in_parts(api, session):
    blob = os.urandom(1000) * 5000

    def both(data):
        return data + blob

    body = body_of(both)
    digest = hashlib.sha256(body).digest()

    def parts(data, **whose):
        pieces = [data[place : place + 700_000] for place in range(0, len(data), 700_000)]
        return pieces[0], [
            api.message("Part", data=piece, more=piece is not pieces[-1], **whose) for piece in pieces[1:]
        ]

    first, rest = parts(body, function=digest)
    session.send(
        functions=[api.message("Function", hash=digest, name="f", python=PYTHON, body=first, more=True)], parts=rest
    )
    inputs = {number: arguments(bytes([number]) * 3_000_000) for number in (1, 2, 3)}
    cut = {number: parts(data, number=number) for number, data in inputs.items()}
    session.send(
        calls=[
            api.message("Call", number=number, function=digest, input=first, more=True)
            for number, (first, _) in cut.items()
        ]
    )
    # The parts of several calls may mix.
    for together in zip(*(rest for _, rest in cut.values()), strict=True):
        session.send(parts=together)
    for number in inputs:
        assert session.value(number) == bytes([number]) * 3_000_000 + blob
    assert max(reply.ByteSize() for reply in session.replies) < 3_000_000


def test_a_group_has_a_value_for_each(session):
    number = session.submit(work.square)
    session.outcome(number)
    call = session.make(work.square, group=True)
    call.input = pickle.dumps((False, [1, 2, "three", 4]))
    session.send(calls=[call])
    results, failures = session.value(call.number)
    assert results == [1, 4, None, 16]
    [(place, blob)] = failures
    assert (place, pickle.loads(blob)["type"]) == (2, "TypeError")


def test_cancels_in_a_session(session, signs):
    held = [session.submit(tasks.wait, signs, "held") for _ in range(2)]
    signs.wait_notes("held", 2)
    waiting = [session.submit(tasks.wait, signs, "waiting") for _ in range(5)]
    for number in (waiting[1], waiting[3], held[0], 999_999):
        session.cancel(number)
    assert {session.problem(waiting[place]).code for place in (1, 3)} == {"cancelled"}
    until(lambda: [number for reply in session.replies for number in reply.going_on] == [held[0]], "a refusal")
    session.cancel(held[1], kill=True)
    assert session.problem(held[1]).code == "cancelled"
    signs.open("go")
    assert session.value(held[0]) == "held"
    assert [session.value(waiting[place]) for place in (0, 2, 4)] == ["waiting"] * 3
    assert len(signs.notes("waiting")) == 3


def test_a_session_that_ends_takes_its_calls_along(engine, api, signs):
    with api.session() as session:
        for _ in range(2):
            session.submit(tasks.wait, signs, "held")
        signs.wait_notes("held", 2)
        for _ in range(100):
            session.submit(tasks.wait, signs, "never")
    until(lambda: len(engine.client.workers()) == 2, "both workers")
    _idle(engine)
    assert engine.client.run(work.square, 3) == 9
    assert signs.notes("never") == []


def test_sessions_side_by_side_keep_apart(asking):
    sessions = [asking().session() for _ in range(20)]
    try:
        # The same numbers everywhere.
        numbers = [[session.submit(_say, 100 * place + x) for x in range(10)] for place, session in enumerate(sessions)]
        for place, session in enumerate(sessions):
            for x, number in enumerate(numbers[place]):
                assert session.value(number) == (100 * place + x) ** 2
                assert session.printed(number) == f"on standard output {100 * place + x}\n".encode()
    finally:
        for session in sessions:
            session.close()


# Calls that are refused


@pytest.mark.parametrize(
    ("terms", "code", "status", "retryable"),
    [
        ({"priority": 101}, "bad-call", 400, False),
        ({"priority": -(2**31)}, "bad-call", 400, False),
        ({"retries": 1_000_000}, "bad-call", 400, False),
        ({"pool": "nonesuch"}, "unknown-pool", 404, False),
        ({"function": b"x" * 32}, "unknown-function", 404, True),
        ({"function": b""}, "unknown-function", 404, True),
    ],
)
def test_a_call_that_cannot_be_is_a_problem_of_its_own(session, terms, code, status, retryable):
    call = session.make(work.square, 3)
    call.MergeFrom(session.api.message("Call", **terms))
    if "function" in terms:
        call.function = terms["function"]
    good = session.make(work.square, 3)
    session.send(calls=[call, good])
    problem = session.problem(call.number)
    assert (problem.code, problem.status, problem.retryable) == (code, status, retryable)
    assert problem.detail
    assert problem.title
    assert session.outcome(call.number).tries == 0
    assert session.value(good.number) == 9


def test_another_python_is_refused_and_both_are_named(api, session):
    def function(x):
        return x + 1

    session.define(function, python="3.1")
    problem = session.problem(session.submit(function, 3))
    assert problem.code == "python-mismatch"
    assert "3.1 " in problem.detail or "3.1," in problem.detail
    assert PYTHON in problem.detail
    # That is a matter between this client and the pool: the same function from the right Python is done, and that
    # does not let the others in.
    with api.session() as right:
        assert right.value(right.submit(function, 3)) == 4
    with api.session() as wrong:
        wrong.define(function, python="3.1")
        assert wrong.problem(wrong.submit(function, 3)).code == "python-mismatch"


def test_more_calls_than_the_window_are_refused_and_may_come_again(session, signs):
    held = [session.submit(tasks.wait, signs, "held") for _ in range(2)]
    signs.wait_notes("held", 2)
    calls = [session.make(work.square, 2) for _ in range(WINDOW + 100)]
    session.send(calls=calls)
    # The last ones are too many; their refusals come at once, though nothing else can.
    late = calls[WINDOW - 2 :]
    for call in (late[0], late[-1]):
        problem = session.problem(call.number)
        assert (problem.code, problem.retryable) == ("queue-full", True)
        assert problem.retry_after_ns > 0
    assert len(session.outcomes()) == len(late)
    signs.open("go")
    for call in (*calls[: WINDOW - 2 : 500], calls[WINDOW - 3]):
        assert session.value(call.number) == 4
    assert session.value(held[0]) == "held"
    again = session.submit(work.square, 5)
    assert session.value(again) == 25


def test_a_full_memory_refuses_inputs_and_is_free_again(start_shared, signs):
    engine = start_shared(default="workers: 1", service="limits: {memory: 16MiB}\n")
    with Api(engine.node) as api, api.describe().session() as session:
        held = session.submit(tasks.wait, signs, "held")
        signs.wait_notes("held")
        numbers = [session.submit(len, bytes(1_500_000)) for _ in range(20)]
        refused = session.problem(numbers[-1])
        assert (refused.code, refused.retryable) == ("memory-full", True)
        assert refused.retry_after_ns > 0
        signs.open("go")
        session.value(held)
        outcomes = [session.outcome(number) for number in numbers]
        done = [outcome for outcome in outcomes if outcome.WhichOneof("result") == "value"]
        assert 8 <= len(done) < 20
        # Others were not hurt, and all of it is given back.
        assert session.value(session.submit(len, bytes(1_500_000))) == 1_500_000
        until(lambda: engine.node.metric("payload_bytes") < 100_000, "an empty memory")


# Clients that do not keep to the rules


def _nothing(session):
    session.send(functions=[session.api.message("Function", hash=b"short")])


def _wrong_hash(session):
    session.send(functions=[session.api.message("Function", hash=b"x" * 32, name="f", python=PYTHON, body=b"body")])


def _wrong_hash_in_parts(session):
    message = session.api.message
    session.send(
        functions=[message("Function", hash=b"x" * 32, body=b"body", more=True)],
        parts=[message("Part", function=b"x" * 32, data=b"more")],
    )


def _number_zero(session):
    session.submit(work.square, 3, number=0)


def _number_in_use(session):
    calls = [session.make(time.sleep, 60, number=7), session.make(time.sleep, 60, number=7)]
    session.send(calls=calls)


@pytest.mark.parametrize("break_", [_nothing, _wrong_hash, _wrong_hash_in_parts, _number_zero, _number_in_use])
def test_a_session_that_breaks_the_rules_ends_and_says_why(engine, asking, break_):
    with asking().session() as good, asking().session() as bad:
        assert good.value(good.submit(work.square, 2)) == 4
        bad.submit(time.sleep, 60, number=100)
        break_(bad)
        code, details = bad.ended()
        assert code is StatusCode.INVALID_ARGUMENT
        assert len(details) > 10
        assert good.value(good.submit(work.square, 3)) == 9
    until(lambda: len(engine.client.workers()) == 2, "both workers")
    _idle(engine)


def test_parts_of_nothing_are_no_harm(session):
    message = session.api.message
    session.send(
        parts=[
            message("Part", number=5, data=b"x"),
            message("Part", function=b"y" * 32, data=b"x"),
            message("Part"),
        ]
    )
    assert session.value(session.submit(work.square, 3)) == 9


def test_a_call_that_never_becomes_whole_can_be_cancelled_and_is_forgotten_with_its_session(engine, asking):
    def held():
        return engine.node.metric("payload_bytes")

    with asking().session() as session:
        call = session.make(work.square, 3)
        call.more = True
        session.send(calls=[call])
        session.cancel(call.number)
        assert session.problem(call.number).code == "cancelled"
        before = held()
        other = session.make(len, bytes(5_000_000))
        other.more = True
        session.send(calls=[other])
        until(lambda: held() > before + 4_000_000, "what has come of it")
    until(lambda: held() < before + 1_000_000, "that it is forgotten")


@pytest.mark.parametrize("seed", range(4))
def test_messages_of_garbage_end_their_stream_alone(engine, api, seed):
    choose = random.Random(seed)
    raw = api.channel.stream_stream(f"/{SERVICE}/Session")
    for _ in range(25):
        messages = [choose.randbytes(choose.choice([1, 10, 1000, 100_000])) for _ in range(choose.randrange(1, 4))]
        call = raw(iter(messages), metadata=api.metadata, timeout=20)
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        assert call.code() is not StatusCode.UNKNOWN
    for name in ("Submit", "Cancel", "Workers"):
        call = api.channel.unary_stream(f"/{SERVICE}/{name}")(choose.randbytes(50), metadata=api.metadata, timeout=20)
        with contextlib.suppress(grpc.RpcError):
            list(call)
    assert engine.client.run(work.square, 4) == 16
    assert "panicked" not in engine.node.log


def test_a_message_that_is_too_large_is_refused(session):
    call = session.make(len, bytes(20_000_000))
    session.send(calls=[call])
    code, _ = session.ended()
    assert code in (StatusCode.OUT_OF_RANGE, StatusCode.RESOURCE_EXHAUSTED)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _head(path, **more):
    """The headers of a request, each written out."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    fields |= {"content-type": "application/grpc", "te": "trailers"} | more
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


HEADERS, END_HEADERS = 1, 4


@pytest.mark.parametrize("seed", range(3))
def test_bytes_of_garbage_close_their_connection_alone(engine, seed):
    choose = random.Random(seed)
    head = _frame(HEADERS, END_HEADERS, 1, _head(f"/{SERVICE}/Session", authorization=f"Bearer {engine.node.token}"))
    begin = PREFACE + _frame(4, 0, 0, b"")
    beginnings = [b"", PREFACE, begin, begin + head]
    for _ in range(40):
        data = choose.choice(beginnings) + choose.randbytes(choose.choice([1, 9, 100, 5000]))
        with Connection(engine.node.address("api")) as connection:
            with contextlib.suppress(OSError):
                connection.send(data)
                connection.socket.shutdown(socket.SHUT_WR)
                while connection.socket.recv(65536):
                    pass
    assert engine.client.run(work.square, 4) == 16
    assert "panicked" not in engine.node.log


@pytest.mark.parametrize(
    "frames",
    [
        [_frame(0, 0, 1, b"data before headers")],
        [_frame(HEADERS, 0, 1, b"\x82"), _frame(0, 0, 1, b"no continuation")],
        [_frame(HEADERS, END_HEADERS, 2, b"\x82")],
        [_frame(HEADERS, END_HEADERS, 1, b"\xff" * 50)],
        [_frame(8, 0, 0, b"\xff\xff\xff\xff"), _frame(8, 0, 0, b"\0\0\0\0")],
        [_frame(4, 0, 0, b"odd")],
        [_frame(6, 0, 0, b"short")],
        [_frame(3, 0, 0, b"\0\0\0\0")],
        [b"\xff\xff\xff" + b"\0" * 20],
    ],
    ids=range(9),
)
def test_frames_that_make_no_sense_end_the_connection(engine, frames):
    with Connection(engine.node.address("api"), patience=10) as connection:
        connection.send(PREFACE + _frame(4, 0, 0, b"") + b"".join(frames))
        with contextlib.suppress(ConnectionError):
            while connection.socket.recv(65536):
                pass
    assert engine.client.run(work.square, 4) == 16
    assert "panicked" not in engine.node.log


def test_a_connection_that_is_reset_frees_its_workers(engine, signs):
    connection = Connection(engine.node.address("api"))
    with Api(engine.node) as described:
        described.describe()
        function = described.function(lambda: tasks.wait(signs, "held"))
        call = described.message("Call", function=function.hash, input=arguments())
        message = described.message("SubmitRequest", function=function, call=call).SerializeToString()
    head = _head(f"/{SERVICE}/Submit", authorization=f"Bearer {engine.node.token}")
    data = b"\0" + struct.pack(">I", len(message)) + message
    connection.send(PREFACE + _frame(4, 0, 0, b"") + _frame(HEADERS, END_HEADERS, 1, head) + _frame(0, 1, 1, data))
    signs.wait_notes("held")
    connection.reset()
    until(lambda: len(engine.client.workers()) == 2, "both workers")
    _idle(engine)


def test_a_client_that_never_reads_costs_little_memory_and_holds_up_nobody(start_shared):
    engine = start_shared(default="workers: 2", service="limits: {memory: 64MiB}\n")
    node = engine.node
    before = node.itself.resident
    with Api(node) as api, api.describe().session(reads=False) as session:
        # A gigabyte, if all of it were made and kept.
        for _ in range(1000):
            session.submit(bytes, 1 << 20)
        peak = before
        for x in range(200):
            assert engine.client.submit(pow, x, 2).result(15) == x * x
            peak = max(peak, node.itself.resident)
        assert peak - before < 300 << 20
    until(lambda: node.metric("payload_bytes") < 1_000_000, "that all of it is forgotten")


def test_a_client_that_never_reads_what_is_printed_holds_up_nobody(start_shared):
    engine = start_shared(default="workers: 2")
    before = engine.node.itself.resident
    with Api(engine.node) as api, api.describe().session(reads=False) as session:
        flood = session.make(lambda: [print("x" * 1000) for _ in range(8000)] and None)
        calls = [flood]
        for _ in range(30):
            calls.append(session.make(lambda: None))
            calls[-1].function = flood.function
        session.send(calls=calls)
        for x in range(100):
            assert engine.client.submit(pow, x, 2).result(30) == x * x
        until(lambda: not any(worker.busy for worker in engine.client.workers()), "that the floods are over", within=40)
        # Of more than 64 MiB that nobody takes, the rest is dropped.
        assert engine.node.itself.resident - before < 200 << 20
        assert engine.client.run(work.square, 4) == 16


# What a session may hold


def test_a_name_that_is_too_long_ends_its_session(api):
    with api.session() as session:
        session.hello()
        body = b"none"
        session.send(functions=[api.message("Function", hash=_sha(body), name="n" * 2000, python=PYTHON, body=body)])
        code, detail = session.ended()
        assert code is StatusCode.INVALID_ARGUMENT
        assert "2000 bytes, and 1024 is the most" in detail


def test_functions_in_pieces_are_bounded_in_number(api):
    with api.session() as session:
        session.hello()
        for number in range(300):
            body = str(number).encode()
            begun = api.message(
                "Function", hash=_sha(body), name="f", python=PYTHON, body=body[:1], more=True, size=len(body)
            )
            session.send(functions=[begun])
        assert session.ended()[0] is StatusCode.RESOURCE_EXHAUSTED


def test_a_name_is_not_told_back_in_full(api):
    with api.session() as session:
        session.hello()
        body = body_of(work.square)
        session.send(functions=[api.message("Function", hash=_sha(body), name="f", python=PYTHON, body=body)])
        session.send(calls=[api.message("Call", number=1, function=_sha(body), pool="p" * 1_000_000)])
        told = until(lambda: [one for reply in session.replies for one in reply.outcomes], "an outcome")[0]
        assert told.problem.code == "unknown-pool"
        assert "(1000000 bytes)" in told.problem.detail
        assert len(told.problem.detail) < 500


def _sha(body):
    return hashlib.sha256(body).digest()
