"""A client of the API that is made of gRPC alone: its messages are built from what the node tells of itself."""

import hashlib
import os
import pickle
import queue
import sys
import threading

# Tests fork, and have no use for gRPC in the children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import cloudpickle
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from harness.waiting import until

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SERVICE = "evener.v1.Evener"
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"


def _reflection_messages():
    """The few messages that it takes to ask for all others."""
    file = descriptor_pb2.FileDescriptorProto(name="asked.proto", package="asked", syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto
    shapes = {
        "Request": [("file_containing_symbol", 4, "string"), ("list_services", 7, "string")],
        "Files": [("file_descriptor_proto", 1, "bytes*")],
        "Service": [("name", 1, "string")],
        "Services": [("service", 1, "Service*")],
        "Reply": [("file_descriptor_response", 4, "Files"), ("list_services_response", 6, "Services")],
    }
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number)
            made.label = types.LABEL_REPEATED if kind.endswith("*") else types.LABEL_OPTIONAL
            plain = kind.rstrip("*")
            made.type = {"string": types.TYPE_STRING, "bytes": types.TYPE_BYTES}.get(plain, types.TYPE_MESSAGE)
            if made.type == types.TYPE_MESSAGE:
                made.type_name = f".asked.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"asked.{name}") for name in ("Request", "Reply"))
    return [message_factory.GetMessageClass(one) for one in found]


class Api:
    """The API of a node. `authority` is the name by which it is called.

    Its messages are as the node has described them; one that may not ask for that takes the description of `described`.
    """

    def __init__(self, node, *, token=None, authority="localhost", origin=None, described=None):
        url = node.url("api")
        target = url if url.startswith("unix:") else url.removeprefix("http://")
        options = [
            ("grpc.default_authority", authority),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = grpc.insecure_channel(target, options=options)
        token = node.token if token is None else token
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        if origin:
            self.metadata.append(("origin", origin))
        self.pool = described.pool if described else None

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # What it is made of.

    def reflect(self, **question):
        asked, answered = _reflection_messages()
        method = self.channel.stream_stream(
            f"/{REFLECTION}/ServerReflectionInfo", asked.SerializeToString, answered.FromString
        )
        call = method(iter([asked(**question)]), metadata=self.metadata, timeout=10)
        try:
            return next(call)
        finally:
            call.cancel()

    def describe(self):
        """Learn all messages."""
        self.pool = descriptor_pool.DescriptorPool()
        for service in (SERVICE, HEALTH):
            for file in self.reflect(file_containing_symbol=service).file_descriptor_response.file_descriptor_proto:
                self.pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
        return self

    def message(self, name, /, **fields):
        """A message, by its name, of the service or of the health service."""
        package = "grpc.health.v1" if name.startswith("Health") else "evener.v1"
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"{package}.{name}"))(**fields)

    def method(self, service, name):
        """What calls a method: takes a message, or an iterator of messages where the method does."""
        found = self.pool.FindServiceByName(service).FindMethodByName(name)
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        make = kinds[found.client_streaming, found.server_streaming]
        answer = message_factory.GetMessageClass(found.output_type)
        call = make(f"/{service}/{name}", lambda message: message.SerializeToString(), answer.FromString)
        return lambda message, timeout=30: call(message, metadata=self.metadata, timeout=timeout)

    # Its methods.

    def check(self, service="", **options):
        return self.method(HEALTH, "Check")(self.message("HealthCheckRequest", service=service), **options).status

    def watch(self, service=""):
        return self.method(HEALTH, "Watch")(self.message("HealthCheckRequest", service=service))

    def workers(self, pool=""):
        return list(self.method(SERVICE, "Workers")(self.message("WorkersRequest", pool=pool)).workers)

    def cancel(self, id_, kill=False):
        return self.method(SERVICE, "Cancel")(self.message("CancelRequest", id=id_, kill=kill)).cancelled

    def submit(self, function, *args, **terms):
        """One call; gives the stream of its events."""
        made = self.function(function)
        call = self.message("Call", function=made.hash, input=arguments(*args), **terms)
        return self.method(SERVICE, "Submit")(self.message("SubmitRequest", function=made, call=call))

    def function(self, function, python=PYTHON):
        body = body_of(function)
        return self.message("Function", hash=hashlib.sha256(body).digest(), name="tested", python=python, body=body)

    def session(self, **options):
        return Session(self, **options)


def body_of(function):
    parts = {"format": 1, "name": "tested", "modules": [], "initializer": None, "key": None}
    return pickle.dumps(parts | {"function": cloudpickle.dumps(function)}, protocol=5)


def arguments(*args):
    return pickle.dumps((args, None), protocol=5)


class Session:
    """A session, whose messages are what the test says. `reads`: a thread of its own takes what the node tells."""

    def __init__(self, api, *, reads=True):
        self.api = api
        self.outgoing = queue.SimpleQueue()
        self.replies = []
        self.looked_at = 0
        self.begun = {}
        self.whole = {}
        self.status = None
        self.numbers = iter(range(1, 1 << 62))
        self.defined = {}
        self.call = api.method(SERVICE, "Session")(iter(self.outgoing.get, None), timeout=None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        if reads:
            self.thread.start()

    def _read(self):
        try:
            for reply in self.call:
                self.replies.append(reply)
            self.status = (grpc.StatusCode.OK, "")
        except grpc.RpcError as error:
            self.status = (error.code(), error.details())

    def close(self):
        self.outgoing.put(None)
        self.call.cancel()
        if self.thread.is_alive():
            self.thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # What it says.

    def send(self, **fields):
        self.outgoing.put(self.api.message("SessionRequest", **fields))

    def hello(self):
        self.send(hello=self.api.message("Hello", client="tests"))
        until(lambda: self.replies, "a welcome")
        return self.replies[0].welcome

    def define(self, function, **options):
        """Send a function; return its hash."""
        if function not in self.defined:
            made = self.api.function(function, **options)
            self.send(functions=[made])
            self.defined[function] = made.hash
        return self.defined[function]

    def make(self, function, *args, number=None, **terms):
        """A call that is not sent yet."""
        number = next(self.numbers) if number is None else number
        return self.api.message("Call", number=number, function=self.define(function), input=arguments(*args), **terms)

    def submit(self, function, *args, **terms):
        """Send a call; return its number."""
        call = self.make(function, *args, **terms)
        self.send(calls=[call])
        return call.number

    def cancel(self, number, kill=False):
        self.send(cancels=[self.api.message("Cancel", number=number, kill=kill)])

    # What it was told.

    def outcomes(self):
        """The outcomes by their numbers, with what they brought; what goes on in parts is put together."""
        while self.looked_at < len(self.replies):
            reply = self.replies[self.looked_at]
            self.looked_at += 1
            for outcome in reply.outcomes:
                assert outcome.number not in self.begun, "a second outcome"
                kind = outcome.WhichOneof("result")
                self.begun[outcome.number] = (outcome, bytearray(getattr(outcome, kind) if kind != "problem" else b""))
                if not outcome.more:
                    self.whole[outcome.number] = self.begun[outcome.number]
            for part in reply.parts:
                self.begun[part.number][1].extend(part.data)
                if not part.more:
                    self.whole[part.number] = self.begun[part.number]
        return self.whole

    def outcome(self, number, within=20):
        until(lambda: number in self.outcomes() or self.status, f"the outcome of call {number}", within=within)
        assert number in self.outcomes(), self.status
        return self.outcomes()[number][0]

    def value(self, number, within=20):
        outcome = self.outcome(number, within)
        assert outcome.WhichOneof("result") == "value", outcome
        return pickle.loads(self.outcomes()[number][1])

    def problem(self, number, within=20):
        outcome = self.outcome(number, within)
        assert outcome.WhichOneof("result") == "problem", outcome
        return outcome.problem

    def printed(self, number, stream=1):
        pieces = [piece for reply in list(self.replies) for piece in reply.printed if piece.number == number]
        return b"".join(piece.data for piece in pieces if piece.stream == stream)

    def ended(self, within=10):
        """Wait until the node ends it; return the status."""
        return until(lambda: self.status, "the end of the session", within=within)
