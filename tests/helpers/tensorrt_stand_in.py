# yolo-prune, AGPL-3.0 license
"""A stand-in for TensorRT, as the text of a module; what cuda_stand_in.py has of the driver stands behind it.

Names, arguments and enum members are those of the bindings of 8.6.1, 10.3.0 and 11.4.0 (from the docstrings in their
wheels); whatever else is asked of it fails.
"""

from __future__ import annotations

TENSORRT = r'''import ctypes, enum, json, os, time

WORLD = json.loads(os.environ["STAND_IN"])
__version__ = WORLD["version"]
MAJOR = int(__version__.split(".")[0])
BY_NAME = {8: 0, 10: 1}.get(MAJOR, 2)
LOG = open(os.environ["STAND_IN_LOG"], "a", buffering=1)


def note(*words):
    LOG.write(json.dumps(words) + "\n")


def need(value, kind):
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"incompatible function arguments: {value!r} is no {kind}")


def members(name, *names):
    return enum.IntEnum(name, {key: index for index, key in enumerate(names)})


Severity = members("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
common = ("DEBUG", "GPU_FALLBACK", "REFIT", "DISABLE_TIMING_CACHE", "TF32", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE")
BuilderFlag = members("BuilderFlag", *common, *(() if MAJOR >= 11 else ("FP16", "INT8", "FP8")))
NetworkDefinitionCreationFlag = members(
    "NetworkDefinitionCreationFlag",
    *(("EXPLICIT_BATCH", "EXPLICIT_PRECISION"), ("EXPLICIT_BATCH", "STRONGLY_TYPED"), ("STRONGLY_TYPED",))[BY_NAME],
)
DataType = members("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64")
SIZES = {"FLOAT": 4, "HALF": 2, "INT8": 1, "INT32": 4, "BOOL": 1, "UINT8": 1, "INT64": 8, "BF16": 2}
TensorIOMode = members("TensorIOMode", "NONE", "INPUT", "OUTPUT")
MemoryPoolType = members("MemoryPoolType", "WORKSPACE", "DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "TACTIC_DRAM")
LayerType = members("LayerType", "CONVOLUTION", "CAST", "ACTIVATION", "CONSTANT", "QUANTIZE", "DEQUANTIZE")


class Strict:
    """As a binding's class: an attribute that it does not have cannot be set."""

    def __setattr__(self, name, value):
        if not name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        object.__setattr__(self, name, value)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity
    _started = False

    def __init__(self):
        self._started = True


class Logger(ILogger):
    def __init__(self, min_severity=Severity.WARNING):
        ILogger.__init__(self)

    def log(self, severity, msg):
        pass


def started(logger, what):
    need(logger, ILogger)
    if not logger._started:
        raise TypeError("__init__() must be called when overriding __init__")
    if WORLD.get("refuses") == what:
        logger.log(Severity.ERROR, "CUDA initialization failure with error: 35\nmore of it")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    return logger


class ITensor(Strict):
    def __init__(self, name, shape, dtype):
        self._all = name, tuple(shape), dtype

    name = property(lambda self: self._all[0])
    shape = property(lambda self: self._all[1])
    dtype = property(lambda self: self._all[2])


class ILayer(Strict):
    def __init__(self, kind, dtype):
        self._kind, self._dtype = kind, dtype

    type = property(lambda self: LayerType[self._kind])
    num_outputs = property(lambda self: 1)

    def get_output(self, index):
        need(index, int)
        return ITensor("x", (1,), DataType[self._dtype]) if self._dtype else None


class INetworkDefinition(Strict):
    def __init__(self):
        self._file = None

    num_layers = property(lambda self: len(self._file["layers"]))
    num_inputs = property(lambda self: len(self._file["inputs"]))

    def get_layer(self, index):
        return ILayer(*self._file["layers"][index])

    def get_input(self, index):
        name, (kind, shape) = list(self._file["inputs"].items())[index]
        return ITensor(name, shape, DataType[kind])


class IOptimizationProfile(Strict):
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        if not tuple(min) == tuple(opt) == tuple(max) or -1 in tuple(opt):
            raise ValueError("inconsistent")
        self._shapes[input] = list(opt)


class IBuilderConfig(Strict):
    def __init__(self):
        self._flags, self._limits, self._profiles = [], {}, []

    def set_flag(self, flag):
        need(flag, BuilderFlag)
        self._flags.append(flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        need(pool, MemoryPoolType)
        need(pool_size, int)
        self._limits[pool.name] = pool_size

    def add_optimization_profile(self, profile):
        need(profile, IOptimizationProfile)
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1


class IHostMemory(Strict):
    def __init__(self, file, shapes):
        self._file, self._shapes = file, shapes

    nbytes = property(lambda self: self._file["size"])


class Builder(Strict):
    def __init__(self, logger):
        self._logger = started(logger, "Builder")

    def create_network(self, flags=0):
        need(flags, int)
        if flags not in ((1,), (0, 1), (0,))[BY_NAME]:  # 10 has the flag still, and does not look at it
            raise ValueError(f"network flags {flags}")
        note("create_network", flags)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        need(network, INetworkDefinition)
        need(config, IBuilderConfig)
        file, flags = network._file, config._flags
        note("build", file["file"], sorted(flags), config._limits, config._profiles)
        kinds = {kind for kind, _ in file["layers"]}, {dtype for _, dtype in file["layers"]}
        fault = file.get("build_fault")
        if MAJOR < 11 and "QUANTIZE" in kinds[0] and "INT8" not in flags:
            fault = "Networks with INT8 Q/DQ layers require INT8 builder mode"
        if MAJOR < 11 and "HALF" in kinds[1] and "FP16" not in flags:
            fault = "FP16 tensors without BuilderFlag.FP16"
        open_ones = [name for name, (_, shape) in file["inputs"].items() if -1 in shape]
        if open_ones and [list(one) for one in config._profiles] != [open_ones]:
            fault = "Network has dynamic or shape inputs, but no optimization profile has been defined."
        if fault:
            self._logger.log(Severity.WARNING, "a warning")
            self._logger.log(Severity.INTERNAL_ERROR, fault + "\nmore of it")
            self._logger.log(Severity.ERROR, "a second error")
            return None
        if "SPARSE_WEIGHTS" in flags:
            self._logger.log(Severity.INFO, "(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b")
        self._logger.log(Severity.VERBOSE, "a page of words")
        GPU.now += 1500.0
        return IHostMemory(file, {name: s for one in config._profiles for name, s in one.items()})


class ParserError(Strict):
    def __init__(self, words):
        self._words = words

    def desc(self):
        return self._words


class OnnxParser(Strict):
    def __init__(self, network, logger):
        need(network, INetworkDefinition)
        need(logger, ILogger)
        self._network, self._errors, self._logger = network, [], logger

    num_errors = property(lambda self: len(self._errors))

    def parse_from_file(self, model):
        need(model, str)
        note("parse", os.path.basename(model))
        return self._read(open(model, "rb").read(), model)

    def parse(self, model, path=None):
        need(model, (bytes, bytearray, memoryview))
        note("parse", None)
        return self._read(bytes(model), "")

    def _read(self, content, name):
        file = json.loads(content)
        file["file"] = os.path.basename(name)
        self._errors = file.get("parse_faults", [])
        self._network._file = file
        if "parse_faults" in file:
            self._logger.log(Severity.ERROR, "what the log says")
        return "parse_faults" not in file

    def get_error(self, index):
        return ParserError(self._errors[index])


class Runtime(Strict):
    def __init__(self, logger):
        self._logger = started(logger, "Runtime")

    def deserialize_cuda_engine(self, serialized_engine):
        need(serialized_engine, IHostMemory)
        note("deserialize", serialized_engine._file["file"])
        if serialized_engine._file.get("no_engine"):
            self._logger.log(Severity.ERROR, "the plan is of another version")
            return None
        return ICudaEngine(serialized_engine)


class ICudaEngine(Strict):
    def __init__(self, plan):
        self._file = plan._file
        self._io = {**self._file["inputs"], **self._file["outputs"]}

    num_io_tensors = property(lambda self: len(self._io))

    def get_tensor_name(self, index):
        return list(self._io)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._file["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType[self._io[name][0]]

    def get_tensor_shape(self, name):
        return tuple(self._io[name][1])

    def create_execution_context(self):
        return None if self._file.get("no_context") else IExecutionContext(self)


class IExecutionContext(Strict):
    def __init__(self, engine):
        self._engine, self._shapes, self._places, self._calls = engine, {}, {}, 0

    def set_input_shape(self, name, shape):
        need(shape, (tuple, list))
        self._shapes[name] = tuple(shape)
        return self._engine.get_tensor_mode(name) == TensorIOMode.INPUT

    def get_tensor_shape(self, name):
        inputs = self._engine._file["inputs"]
        if any(-1 in shape and other not in self._shapes for other, (_, shape) in inputs.items()):
            return tuple(self._engine.get_tensor_shape(name))
        fixed = self._engine._file.get("fixed", {}).get(name)
        return self._shapes.get(name) or tuple(fixed or self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name, memory):
        need(memory, int)
        size = SIZES[self._engine.get_tensor_dtype(name).name]
        for side in self.get_tensor_shape(name):
            size *= side
        if GPU.memory[memory] < size:
            raise MemoryError(f"{name}: {size} bytes in {GPU.memory[memory]}")
        note("address", self._engine._file["file"], name, size)
        self._places[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        need(stream_handle, int)
        file = self._engine._file
        if set(self._places) != set(self._engine._io):
            raise RuntimeError("a tensor has no address")
        if not WORLD.get("unfilled") and not {self._places[name] for name in file["inputs"]} <= GPU.written:
            raise RuntimeError("an input was not copied")
        note("execute", file["file"])
        GPU.enqueue(stream_handle, file["ms"] + 0.001 * self._calls)
        self._calls += 1
        return not file.get("no_run")
'''
