"""Addresses and network interfaces by which machines of a training meet."""

from __future__ import annotations

import os
import socket

import psutil

from conf.errors import UserError

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
KEY, REACHED = "compute.rendezvous", "HOST:PORT of this machine, as the others reach it"
ANSWER_SECONDS = 2.0


def _parts(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    return host, int(port)


def require_own(rendezvous: str) -> None:
    """Refuse a place that is not on this machine, or is taken.

    Raises:
        UserError: Naming it.
    """
    host, port = _parts(rendezvous)
    try:
        address = socket.gethostbyname(host)
    except OSError as error:
        raise UserError.about(KEY, rendezvous, f"{REACHED}; {error.strerror}", "Correct the name, or take the address.") from error
    if _interface(address) is None:
        remedy = "Name this machine, on which the run is: the others come to it."
        raise UserError.about(KEY, rendezvous, f"{REACHED}; {address} is none of its addresses", remedy)
    try:
        socket.create_server((address, port)).close()
    except (OSError, OverflowError) as error:
        allowed = f"{REACHED}, with a free port; {getattr(error, 'strerror', None) or error}"
        raise UserError.about(KEY, rendezvous, allowed, "Choose another port.") from error


def answers(rendezvous: str) -> bool:
    """Whether a run waits there for machines, or trains."""
    try:
        socket.create_connection(_parts(rendezvous), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def own_address(rendezvous: str) -> str:
    """The address of this machine that those which meet there reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent: the kernel chooses the way
        probe.connect(_parts(rendezvous))
        return probe.getsockname()[0]


def interfaces(rendezvous: str) -> dict[str, str]:
    """Variables that name the interface by which workers talk, where they are not set."""
    found = _interface(own_address(rendezvous))
    return {name: os.environ.get(name) or found for name in INTERFACES if found}


def _interface(address: str) -> str | None:
    return next((name for name, own in psutil.net_if_addrs().items() if any(each.address == address for each in own)), None)
