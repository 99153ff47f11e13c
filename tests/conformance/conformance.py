#!/usr/bin/env python3
"""Checks a running Basalt server with a client that another language generated.

The client is made by grpcio-tools from the files in /proto, so it knows nothing of Basalt but the
wire contract. Run it against an empty server:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install grpcio grpcio-tools
    cargo run -- server --path /tmp/conformance --addr 127.0.0.1:20160 &
    /tmp/venv/bin/python tests/conformance/conformance.py --addr 127.0.0.1:20160

Each check is a line on standard output; the exit code is 0 when all of them hold.
"""

import argparse
import concurrent.futures
import importlib
import pathlib
import sys
import tempfile
import traceback
import uuid

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
MAX_KEY = 65535
MAX_VALUE = 8 * 1024 * 1024
MAX_ANSWER = 8 * 1024 * 1024
FAMILIES = ["default", "write", "lock"]

CHECKS = []


def check(function):
    """Registers a check; its docstring is the sentence it proves."""
    CHECKS.append(function)
    return function


def generate(target):
    """Writes the modules of /proto to `target` and makes them importable."""
    import grpc_tools

    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in PROTO.glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={target}",
                 f"--grpc_python_out={target}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("the files in /proto do not compile")
    sys.path.insert(0, str(target))


class Server:
    """The stubs, and a key prefix of this run's own."""

    def __init__(self, addr):
        self.kv = importlib.import_module("kvrpcpb_pb2")
        self.meta = importlib.import_module("metapb_pb2")
        self.admin_messages = importlib.import_module("basaltpb_pb2")
        tinykv = importlib.import_module("tinykvpb_pb2_grpc")
        admin = importlib.import_module("basaltpb_pb2_grpc")
        options = [("grpc.max_receive_message_length", 16 * 1024 * 1024),
                   ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(addr, options=options)
        grpc.channel_ready_future(self.channel).result(timeout=10)
        self.stub = tinykv.TinyKvStub(self.channel)
        self.admin = admin.AdminStub(self.channel)
        self.prefix = uuid.uuid4().hex.encode() + b"/"

    def put(self, key, value, cf="default"):
        answer = self.stub.RawPut(self.kv.RawPutRequest(key=key, value=value, cf=cf), timeout=20)
        assert not answer.error and not answer.HasField("region_error"), answer

    def delete(self, key, cf="default"):
        answer = self.stub.RawDelete(self.kv.RawDeleteRequest(key=key, cf=cf), timeout=20)
        assert not answer.error and not answer.HasField("region_error"), answer

    def get(self, key, cf="default"):
        answer = self.stub.RawGet(self.kv.RawGetRequest(key=key, cf=cf), timeout=20)
        assert not answer.error and not answer.HasField("region_error"), answer
        if answer.not_found:
            assert answer.value == b"", "a missing key has a value"
            return None
        return answer.value

    def scan(self, start, limit, cf="default"):
        request = self.kv.RawScanRequest(start_key=start, limit=limit, cf=cf)
        answer = self.stub.RawScan(request, timeout=20)
        assert not answer.error and not answer.HasField("region_error"), answer
        return [(pair.key, pair.value) for pair in answer.kvs]

    def refused(self, call, *codes):
        """Runs `call`, expects one of the gRPC codes, and looks whether the server lives."""
        try:
            call()
        except grpc.RpcError as error:
            assert error.code() in codes, f"{error.code()}: {error.details()}"
            self.put(self.prefix + b"alive", b"yes")
            assert self.get(self.prefix + b"alive") == b"yes"
            self.delete(self.prefix + b"alive")
            return error.details()
        raise AssertionError("the call was not refused")


INVALID = grpc.StatusCode.INVALID_ARGUMENT


@check
def missing(s):
    """a missing key is not found, without an error"""
    assert s.get(s.prefix + b"none") is None
    s.delete(s.prefix + b"none")


@check
def overwrite_and_delete(s):
    """a put is read, overwritten and deleted"""
    key = s.prefix + b"k"
    s.put(key, b"one")
    assert s.get(key) == b"one"
    s.put(key, b"two")
    assert s.get(key) == b"two"
    s.delete(key)
    assert s.get(key) is None


@check
def families(s):
    """column families are independent and an empty name is default"""
    key = s.prefix + b"k"
    for cf in FAMILIES:
        s.put(key, cf.encode(), cf)
    assert [s.get(key, cf) for cf in FAMILIES] == [cf.encode() for cf in FAMILIES]
    s.put(key, b"nameless", "")
    assert s.get(key, "default") == b"nameless"
    s.delete(key, "")
    assert [s.get(key, cf) for cf in FAMILIES] == [None, b"write", b"lock"]
    s.delete(key, "write")
    s.delete(key, "lock")


@check
def empty_value(s):
    """an empty value is a value, in gets and in scans"""
    key = s.prefix + b"empty"
    s.put(key, b"")
    assert s.get(key) == b""
    assert s.scan(key, 1) == [(key, b"")]
    s.delete(key)


@check
def empty_key(s):
    """an empty key is a key"""
    s.put(b"", b"v", "lock")
    assert s.get(b"", "lock") == b"v"
    assert s.scan(b"", 1, "lock") == [(b"", b"v")]
    s.delete(b"", "lock")
    assert s.get(b"", "lock") is None


@check
def bytes_of_every_kind(s):
    """keys and values are any bytes, and keys are ordered by them"""
    keys = [s.prefix + bytes([byte]) for byte in range(256)]
    for key in reversed(keys):
        s.put(key, key[::-1])
    assert s.scan(s.prefix, 256) == [(key, key[::-1]) for key in keys]
    for key in keys:
        s.delete(key)


@check
def scans(s):
    """a scan begins at its start, inclusive, or behind it, goes up, and stops at its limit"""
    keys = [s.prefix + name for name in (b"a", b"b", b"c", b"d")]
    for key in keys:
        s.put(key, b"v" + key)
    s.delete(keys[2])
    pairs = [(key, b"v" + key) for key in (keys[0], keys[1], keys[3])]
    assert s.scan(keys[0], 3) == pairs
    assert s.scan(keys[0], 2) == pairs[:2]
    assert s.scan(keys[2], 1) == pairs[2:], "an absent start begins at the next key"
    assert s.scan(s.prefix, 3) == pairs
    assert s.scan(s.prefix, 0) == [], "limit 0 returns nothing"
    assert s.scan(b"\xff" * 64, 10) == []
    for key in keys:
        s.delete(key)


@check
def region_context(s):
    """a request with a region context is served"""
    epoch = s.meta.RegionEpoch(conf_ver=1, version=1)
    peer = s.meta.Peer(id=1, store_id=1)
    context = s.kv.Context(region_id=1, region_epoch=epoch, peer=peer, term=6)
    key = s.prefix + b"context"
    answer = s.stub.RawPut(s.kv.RawPutRequest(context=context, key=key, value=b"v"))
    assert not answer.error and not answer.HasField("region_error")
    assert s.stub.RawGet(s.kv.RawGetRequest(context=context, key=key)).value == b"v"
    s.delete(key)


@check
def key_limit(s):
    """a key of 65535 bytes is served, one more byte is refused by name"""
    key = s.prefix.ljust(MAX_KEY, b"k")
    s.put(key, b"long")
    assert s.get(key) == b"long"
    assert s.scan(key, 1) == [(key, b"long")]
    s.delete(key)
    for call in (lambda: s.put(key + b"k", b""), lambda: s.get(key + b"k"),
                 lambda: s.delete(key + b"k"), lambda: s.scan(key + b"k", 1)):
        assert str(MAX_KEY) in s.refused(call, INVALID)


@check
def value_limit(s):
    """a value of 8 MiB is served, one more byte is refused by name"""
    key = s.prefix + b"big"
    value = bytes(range(256)) * (MAX_VALUE // 256)
    s.put(key, value)
    assert s.get(key) == value
    assert s.scan(key, 1) == [(key, value)]
    assert str(MAX_VALUE) in s.refused(lambda: s.put(key, value + b"x"), INVALID)
    assert s.get(key) == value
    s.delete(key)


@check
def message_limit(s):
    """a message over 10 MiB is refused"""
    codes = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
    s.refused(lambda: s.put(s.prefix + b"k", bytes(11 * 1024 * 1024)), *codes)
    assert s.get(s.prefix + b"k") is None


@check
def long_scans(s):
    """a scan whose answer would pass 8 MiB is cut, and goes on behind its last key"""
    value = bytes(1024 * 1024)
    keys = [s.prefix + b"%02d" % number for number in range(20)]
    for key in keys:
        s.put(key, value)
    found, start = [], s.prefix
    while len(found) < len(keys):
        pairs = s.scan(start, 100)
        pairs = [pair for pair in pairs if pair[0].startswith(s.prefix)]
        assert pairs, "an answer without pairs before the end"
        assert sum(len(key) + len(value) for key, value in pairs) <= MAX_ANSWER
        found += [key for key, _ in pairs]
        start = found[-1] + b"\0"
    assert found == keys
    for key in keys:
        s.delete(key)


@check
def unknown_family(s):
    """an unknown column family is refused, and the answer names those there are"""
    for cf in ("x", "Default", "raft"):
        for call in (lambda: s.put(b"k", b"v", cf), lambda: s.get(b"k", cf),
                     lambda: s.delete(b"k", cf), lambda: s.scan(b"k", 1, cf)):
            assert "default, write, lock" in s.refused(call, INVALID)


@check
def unimplemented(s):
    """an RPC that is not built says so by its name"""
    calls = {
        "KvGet": s.kv.GetRequest(), "KvScan": s.kv.ScanRequest(),
        "KvPrewrite": s.kv.PrewriteRequest(), "KvCommit": s.kv.CommitRequest(),
        "KvCheckTxnStatus": s.kv.CheckTxnStatusRequest(),
        "KvBatchRollback": s.kv.BatchRollbackRequest(),
        "KvResolveLock": s.kv.ResolveLockRequest(),
        "Coprocessor": importlib.import_module("coprocessor_pb2").Request(),
    }
    for name, request in calls.items():
        call = lambda: getattr(s.stub, name)(request, timeout=10)
        assert name in s.refused(call, grpc.StatusCode.UNIMPLEMENTED)


@check
def malformed(s):
    """bytes that are no message of the method are the client's mistake"""
    call = s.channel.unary_unary("/tinykvpb.TinyKv/RawGet")
    for noise in (b"\xff" * 20, b"\x12\xff\xff\xff\xff\x0fshort", b"\x18\x05"):
        s.refused(lambda: call(noise, timeout=10), INVALID)


@check
def deadline(s):
    """a deadline that is over before the answer is a deadline exceeded"""
    request = s.kv.RawPutRequest(key=s.prefix + b"late", value=bytes(1024 * 1024))
    s.refused(lambda: s.stub.RawPut(request, timeout=0.00001),
              grpc.StatusCode.DEADLINE_EXCEEDED)
    s.delete(s.prefix + b"late")


@check
def parallel_clients(s):
    """sixteen clients in parallel read their own writes"""
    def work(client):
        for number in range(50):
            key = s.prefix + b"p/%d/%d" % (client, number)
            s.put(key, b"%d" % number)
            assert s.get(key) == b"%d" % number
            s.delete(key)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))


@check
def administration(s):
    """the admin service tells the state, flushes and compacts"""
    status = s.admin.Status(s.admin_messages.StatusRequest())
    assert status.mode == s.admin_messages.MODE_STANDALONE
    assert status.state == s.admin_messages.STATE_SERVING
    s.put(s.prefix + b"flushed", b"v")
    s.admin.Flush(s.admin_messages.FlushRequest())
    s.admin.Compact(s.admin_messages.CompactRequest(cf="default"))
    assert s.get(s.prefix + b"flushed") == b"v"
    s.delete(s.prefix + b"flushed")


@check
def health(s):
    """the health service says SERVING for the whole and for TinyKv"""
    # The messages are two fields; by hand they need no package beside grpcio.
    call = s.channel.unary_unary("/grpc.health.v1.Health/Check")
    for name in (b"", b"tinykvpb.TinyKv"):
        request = b"\x0a" + bytes([len(name)]) + name if name else b""
        assert call(request, timeout=10) == b"\x08\x01"


@check
def nothing_left(s):
    """every check has removed what it wrote"""
    for cf in FAMILIES:
        left = [key for key, _ in s.scan(s.prefix, 100, cf) if key.startswith(s.prefix)]
        assert left == [], left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--addr", default="127.0.0.1:20160")
    addr = parser.parse_args().addr
    with tempfile.TemporaryDirectory() as target:
        generate(target)
        server = Server(addr)
        failed = 0
        for one in CHECKS:
            try:
                one(server)
                print("ok    ", one.__doc__)
            except Exception:  # a check may fail in any way; the others still tell something
                failed += 1
                print("FAILED", one.__doc__)
                traceback.print_exc()
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
