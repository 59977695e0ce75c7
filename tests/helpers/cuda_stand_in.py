# yolo-prune, AGPL-3.0 license
"""A stand-in for the CUDA driver, as text that follows TensorRT's: functions of cuda.h (12.9).

It has a clock of its own, which only a synchronised stream moves on.
"""

from __future__ import annotations

CUDA = r'''

# The driver -----------------------------------------------------------------------------------------------------------

HOST = {}


class GPU:
    now, memory, written, tails, events = 0.0, {}, set(), {}, {}

    @classmethod
    def enqueue(cls, stream, ms):
        cls.tails[stream] = max(cls.tails[stream], cls.now) + ms

    @classmethod
    def synchronize(cls, stream):
        cls.now = max(cls.now, cls.tails[stream])


def perf_counter():
    if any(tail > GPU.now for tail in GPU.tails.values()):
        raise RuntimeError("time is read before the stream is synchronised")
    return GPU.now / 1e3


time.perf_counter = perf_counter


class P:
    """A pointer argument to one of a type, made by ctypes.byref."""

    def __init__(self, kind):
        self.kind = kind


I, U, F, S, V, A = ctypes.c_int, ctypes.c_uint, ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint64
ARGUMENTS = {
    "cuInit": (U,),
    "cuDeviceGetCount": (P(I),),
    "cuDeviceGet": (P(I), I),
    "cuDeviceGetName": (ctypes.Array, I, I),
    "cuDeviceGetAttribute": (P(I), I, I),
    "cuDevicePrimaryCtxRetain": (P(V), I),
    "cuCtxSetCurrent": (V,),
    "cuMemAlloc_v2": (P(A), S),
    "cuMemAllocHost_v2": (P(V), S),
    "cuStreamCreate": (P(V), U),
    "cuStreamSynchronize": (V,),
    "cuEventCreate": (P(V), U),
    "cuEventRecord": (V, V),
    "cuEventElapsedTime": (P(F), V, V),
    "cuMemcpyHtoDAsync_v2": (A, V, S, V),
    "cuMemcpyDtoHAsync_v2": (V, A, S, V),
    "cuGetErrorString": (I, P(ctypes.c_char_p)),
}


class Driver:
    def __getattr__(self, name):
        kinds, function = ARGUMENTS[name], globals()[name]

        def call(*values):
            assert len(values) == len(kinds), name
            plain = []
            for value, kind in zip(values, kinds):
                if isinstance(kind, P):
                    value = value._obj
                assert isinstance(value, kind.kind if isinstance(kind, P) else kind), (name, value, kind)
                plain.append(value if isinstance(kind, P) or kind is ctypes.Array else value.value)
            if name == WORLD.get("fails"):
                return 2
            if name not in ("cuInit", "cuDeviceGetCount", "cuGetErrorString"):
                assert "context" in HOST or not name.startswith(("cuMem", "cuStream", "cuEvent")), "no context"
            return function(*plain) or 0

        return call


def cuInit(flags):
    return 100 if WORLD.get("gpus") is None else 0


def cuDeviceGetCount(count):
    count.value = WORLD["gpus"]


def cuDeviceGet(device, ordinal):
    device.value = ordinal + 7


def cuDeviceGetName(name, length, device):
    assert (length, device) == (len(name), 7)
    name.value = b"Orin"


def cuDeviceGetAttribute(value, which, device):
    value.value = {75: WORLD.get("capability", [8, 7])[0], 76: WORLD.get("capability", [8, 7])[1]}[which]


def cuDevicePrimaryCtxRetain(context, device):
    context.value = 0x99


def cuCtxSetCurrent(context):
    assert context == 0x99
    HOST["context"] = True


def cuMemAlloc_v2(address, size):
    address.value = (1 << 40) + (len(GPU.memory) << 20)
    GPU.memory[address.value] = size


def cuMemAllocHost_v2(address, size):
    room = ctypes.create_string_buffer(size)
    address.value = ctypes.addressof(room)
    HOST[address.value] = (size, room)


def cuStreamCreate(stream, flags):
    assert flags == 1
    stream.value = 0x1000 + len(GPU.tails)
    GPU.tails[stream.value] = 0.0


def cuStreamSynchronize(stream):
    GPU.synchronize(stream)


def cuEventCreate(event, flags):
    event.value = 0x2000 + len(GPU.events)
    GPU.events[event.value] = None


def cuEventRecord(event, stream):
    GPU.events[event] = max(GPU.tails[stream], GPU.now)


def cuEventElapsedTime(took, start, end):
    if GPU.events[end] is None or GPU.events[end] > GPU.now:
        return 600
    took.value = GPU.events[end] - GPU.events[start]


def cuMemcpyHtoDAsync_v2(address, place, size, stream):
    assert size == HOST[place][0] == GPU.memory[address]
    GPU.written.add(address)
    GPU.enqueue(stream, 0.25)


def cuMemcpyDtoHAsync_v2(place, address, size, stream):
    assert size == HOST[place][0] == GPU.memory[address]
    GPU.enqueue(stream, 0.5)


def cuGetErrorString(code, words):
    words.value = {2: b"out of memory", 100: b"no CUDA-capable device is detected"}[code]


_real = ctypes.CDLL


def open_library(name, *rest, **named):
    if name not in ("libcuda.so.1", "nvcuda.dll"):
        return _real(name, *rest, **named)
    if WORLD.get("no_driver"):
        raise OSError(f"{name}: cannot open shared object file")
    return Driver()


ctypes.CDLL = open_library
'''
