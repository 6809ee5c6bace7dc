"""The environment variables that the code reads, for docs/reference/environment.md."""

VARIABLES = {
    "LADDER_HOME": "Folder of everything that Ladder writes; default `./.ladder`.",
    "LADDER_CLUSTER": "Address of a Dask scheduler, such as `tcp://host:8786`, on whose workers trials and arms train, "
    "and windows are judged; where it is not set this machine does it.",
    "LADDER_STORE": "Object store behind the store of the home, such as `s3://bucket/folder`, which several machines share; "
    "none where it is not set.",
    "LADDER_STORE_LEASE": "Seconds after which the right of a machine to compute a result passes on, unless it is renewed; default 60.",
    "LADDER_STORE_CACHE": "Size such as `50GB` to which the results of a home are kept, where the object store has them, too; "
    "no limit where it is not set.",
    "LADDER_ENDPOINTS": "Addresses, separated by commas, that a run which was started through a server may ask for texts "
    "(`data.generate.endpoint.url`); none where it is not set.",
    "LADDER_ROOTS": "Folders, separated by colons, in which the paths of a run that was started through a server must lie; "
    "`ladder serve` sets it to its working directory and the home where it is not set.",
    "LADDER_HOSTS": "Further names, separated by commas, to which the servers of `ladder serve` answer, such as that of a proxy.",
    "LADDER_GROUP_READS": "`1`: the group may read the home; default: its owner alone. The password of the servers stays the owner's.",
    "LADDER_RECORD_PATIENCE": "Seconds for which one run, in all, waits for an MLflow that is away, between trainings; default 90.",
    "LADDER_SERVER_SECONDS": "Seconds for which the embedded Prefect server stays after the last run that used it; default 300; "
    "`0`: it ends with that run.",
    "MLFLOW_TRACKING_URI": "Where runs are recorded; default: SQLite under `LADDER_HOME`; `none`: nowhere, MLflow is off.",
    "MLFLOW_TRACKING_USERNAME": "User for an MLflow server with basic authentication; the password is `MLFLOW_TRACKING_PASSWORD`.",
    "MLFLOW_AUTH_CONFIG_PATH": "Accounts in the MLflow that `ladder serve` starts, in place of the password of the home; needs `.[auth]`.",
    "PREFECT_API_URL": "Prefect's server; default: that of `ladder serve` on the same home, else one that the runs of a home share, "
    "and that ends by itself.",
    "PREFECT_UI_URL": "Address of Prefect's pages in messages, where it is not that of the API.",
    "PREFECT_API_AUTH_STRING": "`user:password` for a Prefect server; default for those of a home: the line in its file `login`. "
    "`PREFECT_SERVER_API_AUTH_STRING` has the servers of `ladder serve` ask for another.",
    "PREFECT_HOME": "Folder of Prefect's own settings; default: `prefect` in the home. `PREFECT_PROFILES_PATH` and "
    "`PREFECT_API_DATABASE_CONNECTION_URL`, if set, are read as Prefect reads them.",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "Seconds between heartbeats of a run; set by `ladder deploy` for workers.",
    "HF_HUB_OFFLINE": "`0` lets checkpoints and data sets be fetched from the Hugging Face hub; default `1`.",
    "HF_DATASETS_CACHE": "Cache of the hub's data sets; default `datasets` under `LADDER_HOME`.",
    "OMP_NUM_THREADS": "Processor threads, where `compute.threads` and `bench.threads` say nothing.",
    "RANK": "Number of a worker among those of a training, set by torch.distributed.run or Ray as are the next two.",
    "LOCAL_RANK": "Its number among those on its machine.",
    "WORLD_SIZE": "Workers of the training.",
    "GLOO_SOCKET_IFNAME": "Network interface by which workers on processors talk; default `lo`, this machine alone, "
    "or with `compute.rendezvous` the one that leads there; so is `NCCL_SOCKET_IFNAME` for GPUs.",
    "RAY_ADDRESS": "`HOST:PORT` of the head of a Ray cluster for `compute.launcher: ray`; a cluster of its own where it is not set.",
    "CXX": "The C++ compiler of `training.compile` on a processor; default `g++`, on macOS `clang++`.",
    "THP_MEM_ALLOC_ENABLE": "`1`: PyTorch's huge pages in place of those of the C library; so by default only where the latter has none.",
}
