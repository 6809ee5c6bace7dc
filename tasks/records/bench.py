"""Records of measured latency, throughput and memory, with machine and settings."""

from __future__ import annotations

from tasks.records.base import Record


class Spread(Record):
    """Times of one thing, measured again and again, in seconds."""

    p50: float
    p95: float
    p99: float
    mean: float
    count: int


class Case(Record):
    """A model at one batch size.

    Attributes:
        batch_size: Requests answered at once.
        whole: Time of a batch from its input to its last output.
        prefill: Time to the first token, for language models: the whole prompt in one pass, the cache of keys and values filled.
        decode: Time of each further token, for language models, with that cache.
        requests_per_second: Batch size over the mean time of a batch.
        tokens_per_second: Written tokens a second while decoding, for language models.
    """

    batch_size: int
    whole: Spread
    prefill: Spread | None = None
    decode: Spread | None = None
    requests_per_second: float
    tokens_per_second: float | None = None


class Loading(Record):
    """A start in a fresh process, whose files the system may still hold in memory.

    Attributes:
        import_seconds: Until the libraries are there.
        load_seconds: From the folder to a model that is ready.
        first_seconds: The first answer.
        peak_bytes: Most resident memory of the process, libraries included.
        library_bytes: Of it: memory resident before the model was loaded.
        gpu_bytes: Most memory on the GPU; None without one.
    """

    import_seconds: float
    load_seconds: float
    first_seconds: float
    peak_bytes: int
    library_bytes: int
    gpu_bytes: int | None = None


class Limit(Record):
    """The least time that the machine leaves a model at one batch size: `layers x t0 + bytes moved / bandwidth + head`, in seconds.

    Attributes:
        prefill: Of the pass over the prompt, or of a classifier's whole answer; None where it was not worked out.
        decode: Of a further token, for language models.
    """

    batch_size: int
    prefill: float
    decode: float | None = None


class BenchMachine(Record):
    """The machine of a measurement.

    Attributes:
        flops: FLOP/s of a large matrix product; None where it was not measured.
        layer_seconds: Time of a layer too narrow to compute anything: t0 of the roofline.
        head_seconds: Time of all but the layers in such a model.
    """

    processor: str
    device: str
    threads: int
    dtype: str
    torch: str
    flops: float | None = None
    layer_seconds: float | None = None
    head_seconds: float | None = None


class ModelBench(Record):
    """The measurement of one model.

    Attributes:
        tokens: Of a request: of its prompt for language models, of the sequence for classifiers, patches and all.
        new_tokens: Written in answer; 0 for classifiers.
        beside: Names of the models that were measured in turn with it, itself included.
        bandwidth: Bytes a second of a matrix-vector product over as many bytes as the weights have; None where it was not measured.
        limits: The roofline, one for each batch size.
    """

    name: str
    weights_sha256: str
    parameters: int
    file_bytes: int
    tokens: int
    new_tokens: int
    rounds: int
    beside: tuple[str, ...] = ()
    cases: tuple[Case, ...]
    loading: Loading | None = None
    bandwidth: float | None = None
    limits: tuple[Limit, ...] = ()
    machine: BenchMachine

    def case(self, batch_size: int) -> Case | None:
        """The measurement at a batch size; None without one."""
        return next((case for case in self.cases if case.batch_size == batch_size), None)


class RunBench(Record):
    """All models of a run, measured in turn: `runs/<run>/bench.json`.

    Attributes:
        mark: Hash of the weights, the settings and the machine, by which it is used again.
        measured: ISO 8601, UTC.
    """

    mark: str
    measured: str
    workload: str
    models: tuple[ModelBench, ...]
