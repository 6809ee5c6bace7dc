"""Start workers by Ray Train, on a given cluster or on one of its own.

The driver is a process of its own, as torch.distributed.run is: a crash of Ray takes no run along, and what Ray prints goes into a file. A
cluster of its own is on loopback alone, ends with its training, and asks for a token that only its own processes have.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import LadderError, UserError
from conf.schema.compute import Compute
from tasks.training.workers.order import POLL_SECONDS, SAME_VERSIONS, STOP, in_words, versions, write_outcome

ADDRESS = "RAY_ADDRESS"
STARTS = 3  # attempts to start a cluster of its own: on a loaded machine Ray's own processes may come up too late for one another
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
STORE_BYTES = 100 * 2**20  # of Ray's object store, which a training does not use; the least is 75 MiB
REMEDY = "Start `ray start --head` there and `ray start --address=HOST:PORT` on each machine, this one included."
OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # workers import torch, several at once
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_raylet_start_wait_time_s": "120",
}


def require_ray() -> None:
    """Refuse to begin without Ray, or with an address that is none.

    Raises:
        UserError: Naming the setting or the variable.
    """
    if find_spec("ray") is None:
        remedy = "Run `pip install '.[ray]'` in the clone, or set launcher: torchrun."
        raise UserError.about("compute.launcher", "ray", "ray with Ray installed, which it is not", remedy)
    address = os.environ.get(ADDRESS)
    if address and not re.fullmatch(r"[^\s:/]+:\d{1,5}", address):
        raise UserError.about(ADDRESS, address, "HOST:PORT of the head of a Ray cluster", "Correct it, or leave it out.")


def command(folder: Path, compute: Compute) -> list[str]:
    """The driver's command; it starts all workers anew after one has died."""
    numbers = [str(compute.workers), str(compute.max_failures)]
    return [sys.executable, "-m", "tasks.training.workers.on_ray", str(folder), *numbers, compute.device]


def environment(compute: Compute) -> dict[str, str]:
    """Variables for the driver, and for a cluster of its own: the loopback interface, and a token that nothing writes down."""
    given = {name: os.environ.get(name, value) for name, value in OURS.items()}
    if os.environ.get(ADDRESS):
        return given
    alone = {"GLOO_SOCKET_IFNAME": "lo", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return given | {name: os.environ.get(name, value) for name, value in alone.items()}


def main(folder: Path, workers: int, max_failures: int, device: str) -> None:
    """Have Ray train, and wait for the end; an error that a user can mend is the outcome."""
    threading.Thread(target=_watch, args=(folder,), daemon=True).start()
    try:
        with _cluster(folder, workers):
            gpu = _check_places(workers, device)
            if os.environ.get(ADDRESS):
                _check_nodes(folder)
            _fit(folder, workers, max_failures, gpu)
    except LadderError as error:
        write_outcome(folder, error)


def _watch(folder: Path) -> None:
    """Have the workers stop when the run is gone, which those on other machines cannot see."""
    run = os.getppid()
    while os.getppid() == run:
        time.sleep(POLL_SECONDS)
    (folder / STOP).touch()


def _fit(folder: Path, workers: int, max_failures: int, gpu: bool) -> None:
    train = _ray("ray.train")
    failures = train.FailureConfig(max_failures=max_failures, controller_failure_limit=STARTS)
    _ray("ray.train.torch").TorchTrainer(
        share,
        train_loop_config={"folder": str(folder)},
        scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=train.RunConfig(name="ray", storage_path=str(folder), failure_config=failures),
    ).fit()


def share(order: Mapping[str, str]) -> None:
    """The function of each of Ray's workers."""
    from tasks.training.workers.worker import main as train

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    train(Path(order["folder"]))


@contextmanager
def _cluster(folder: Path, workers: int) -> Iterator[None]:
    """A connection to the cluster in `RAY_ADDRESS`, else to one of its own, until the end of the block.

    Raises:
        UserError: The address does not answer, or not as a cluster of this version of Ray.
        LadderError: The cluster of its own did not start.
    """
    address = os.environ.get(ADDRESS)
    if address:
        _connect(address, folder)
        yield
        _ray().shutdown()
        return
    # Not below TMPDIR: names of sockets may have 107 letters, and Ray adds sixty.
    place = Path(tempfile.mkdtemp(prefix="ladder-ray-", dir="/tmp"))
    try:
        _start(workers, place)
        yield
        _ray().shutdown()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _connect(address: str, folder: Path) -> None:
    ray = _ray()
    host, _, port = address.rpartition(":")
    refused = UserError.about(ADDRESS, address, f"the head of a cluster of Ray {ray.__version__} that answers", REMEDY)

    def give_up() -> None:
        write_outcome(folder, refused)
        os._exit(0)

    late = threading.Timer(ANSWER_SECONDS, give_up)  # Ray itself tries for many minutes
    late.daemon = True
    late.start()
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, logging_level="WARNING")
    except (OSError, OverflowError, ConnectionError) as error:
        raise refused from error
    except RuntimeError as error:  # another version of Ray or Python
        raise UserError.about(ADDRESS, address, f"a cluster that takes this process: {_line(error)}", SAME_VERSIONS) from error
    finally:
        late.cancel()


def _start(workers: int, place: Path) -> None:
    ray = _ray()
    last: BaseException = LadderError()
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                logging_level="WARNING",
                _node_ip_address="127.0.0.1",
                _temp_dir=str(place),
            )
        except Exception as error:  # noqa: BLE001 - Ray raises Exception itself
            sys.stderr.write(f"start {attempt} of {STARTS} failed: {error}\n")
            ray.shutdown()
            last = error
        else:
            return
    raise LadderError(f"Ray did not start on this machine, in {STARTS} attempts: {_line(last)}")


def _check_places(workers: int, device: str) -> bool:
    """Refuse more workers than the cluster has places, for which Ray would wait; whether these are GPUs."""
    ray = _ray()
    found = ray.cluster_resources()
    gpu = device != "cpu" and found.get("GPU", 0) > 0
    places, kind = int(found.get("GPU" if gpu else "CPU", 0)), "GPUs" if gpu else "processors"
    if workers > places:
        where = f" at {address}" if (address := os.environ.get(ADDRESS)) else ""
        raise UserError.about("compute.workers", workers, f"at most {places}, the {kind} of the cluster{where}", "Lower it.")
    return gpu


def _check_nodes(folder: Path) -> None:
    """Refuse a cluster with a node that has another version or does not see the order.

    Raises:
        UserError: Naming the node.
        LadderError: A node does not answer.
    """
    ray, at = _ray(), _ray("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    names, seen = list(versions()), str(folder)

    def look() -> tuple[dict[str, str], bool]:  # travels as code: a node may have another Ladder, or none
        import importlib.metadata
        import os
        import platform

        found = {}
        for name in names:
            try:
                found[name] = platform.python_version() if name == "Python" else importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "none"
        return found, os.path.isdir(seen)

    task = ray.remote(num_cpus=0)(look)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [task.options(scheduling_strategy=at(node["NodeID"], soft=False)).remote() for node in nodes]
    try:
        answers = ray.get(asked, timeout=ANSWER_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        raise LadderError(f"{ADDRESS}: a node of the cluster did not answer within {ANSWER_SECONDS:g} s.") from error
    for node, (theirs, sees) in zip(nodes, answers, strict=True):
        name = node["NodeManagerAddress"]
        if theirs != versions():
            raise UserError.about(ADDRESS, f"a node at {name} with {in_words(theirs)}", in_words(versions()), SAME_VERSIONS)
        if not sees:
            remedy = "Mount the disk of LADDER_HOME there, at the same path."
            raise UserError.about(ADDRESS, f"a node at {name}", f"nodes that see {folder}, which it does not", remedy)


def _ray(module: str = "ray") -> Any:
    """A module of Ray, which only this needs and only some install."""
    return import_module(module)


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
