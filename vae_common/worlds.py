"""The processes that share one training: which there are, and which of them this one is.

Launchers say so in the environment: torchrun (and whoever sets its variables), or SLURM's `srun`. Nothing here imports
a framework; what the processes say to each other is each half's distributed.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vae_common.errors import InputError, shown

TIMEOUT = 60.0
"""Seconds that processes wait for each other at the start, unless TWIN_VAE_TIMEOUT says otherwise."""
PORT = 29_500
"""Where the first process listens, unless MASTER_PORT says otherwise: torchrun's own."""
_MOST = 100_000
_PATIENCE = 5.0
"""Seconds within which who reaches the first process has to say who it is."""
_GO, _LONGEST = "go", 1000
"""What the first process answers where all may go on; bytes of an answer."""


@dataclass(frozen=True)
class World:
    """The processes of one training, and this one among them."""

    rank: int = 0
    """This process, from 0: the first one writes."""
    size: int = 1
    """How many there are."""
    local_rank: int = 0
    """This process among those of its machine."""
    address: str = "localhost"
    """The first process's machine."""
    port: int = PORT
    """Where it listens."""
    timeout: float = TIMEOUT
    """Seconds that processes wait for each other at the start."""
    agent: bool = False
    """Whether torchrun's agent listens at that port, for all of them."""

    @property
    def name(self) -> str:
        """This process in messages."""
        return f"process {self.rank} of {self.size}"


def of_this_machine(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables with which a process of a world on this machine is started, as torchrun sets them."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "localhost"}


def require_own_devices(named: Sequence[str]) -> None:
    """Raises InputError where two processes share an accelerator; `named` is each process's, or empty."""
    for rank, device in enumerate(named):
        first = named.index(device)
        if device and first < rank:
            said = f"devices: processes {first} and {rank} both have {shown(device)}, expected one for each"
            raise InputError(f"{said}; start as many on a machine as it has, or show each its own")


def from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """The world that a launcher has started this process in; one of a single process where none has.

    Raises InputError where its variables contradict each other.
    """
    if "WORLD_SIZE" in environment:
        names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
        address = environment.get("MASTER_ADDR", "localhost")
    elif int_or_none(environment.get("SLURM_STEP_NUM_TASKS")) not in (None, 1) and "SLURM_PROCID" in environment:
        names = {"rank": "SLURM_PROCID", "size": "SLURM_STEP_NUM_TASKS", "local_rank": "SLURM_LOCALID"}
        listed = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "localhost"
        address = environment.get("MASTER_ADDR") or first_host(listed)
    else:
        return World()
    numbers = {field: _number(environment, name) for field, name in names.items() if name in environment}
    rank, size = numbers.get("rank"), numbers["size"]
    if rank is None or not 0 <= rank < size:
        received = f"{names['rank']} {environment.get(names['rank'])} with {names['size']} {size}"
        raise InputError(f"world: received {received}, expected a rank from 0 to {size - 1}; start it with torchrun")
    port = _number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else PORT
    timeout = environment.get("TWIN_VAE_TIMEOUT", str(TIMEOUT))
    if not re.fullmatch(r"\d+(\.\d+)?", timeout) or float(timeout) <= 0:
        raise InputError(f"TWIN_VAE_TIMEOUT: received {shown(timeout)}, expected seconds, for example 60")
    agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return World(rank, size, numbers.get("local_rank", 0), address, port, float(timeout), agent)


def first_host(listed: str) -> str:
    """The first of the machines that SLURM lists in short: `node[003-007,9],other` begins with node003."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", listed)
    if found is None:
        raise InputError(f"SLURM_NODELIST: received {shown(listed)}, expected names of machines")
    return found[1] + (found[2] or "")


def not_met(world: World, port: int, reason: str = "") -> InputError:
    """What is said where the processes do not all come."""
    said = f"world: {world.name} waited {world.timeout:g} s at {world.address}:{port} for the others"
    mend = f"start all {world.size}, with one address and port, or wait longer: TWIN_VAE_TIMEOUT"
    return InputError(f"{said}{f' ({reason})' if reason else ''}; {mend}")


def meet(world: World, port: int, device: str = "") -> None:
    """Waits until all processes of a world are there; the first listens at that port meanwhile, and leaves it free.

    `device` names this process's accelerator, for `require_own_devices`. Raises InputError in every process where two
    share one, and where the port is in use, or they do not all come in time. (The frameworks' own meetings end a
    process with a stack trace where somebody is missing.)
    """
    until = time.monotonic() + world.timeout
    try:
        if world.rank == 0:
            require_free(port)
            _receive(world, port, until, device)
        else:
            _report(world, port, until, device)
    except TimeoutError:
        raise not_met(world, port) from None
    except OSError as error:
        said = f"world: {world.name} cannot reach {world.address}:{port} ({error.strerror or error})"
        raise InputError(f"{said}; check MASTER_ADDR and MASTER_PORT") from error


def _receive(world: World, port: int, until: float, device: str) -> None:
    """The first process: hears of all others, then lets them go on, or says why not."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("", port), backlog=world.size, reuse_port=False))
        heard: dict[int, socket.socket] = {}
        named = [device] + [""] * (world.size - 1)
        while len(heard) < world.size - 1:
            if time.monotonic() >= until:
                raise TimeoutError
            listening.settimeout(max(until - time.monotonic(), 1e-3))
            other = stack.enter_context(listening.accept()[0])
            try:
                rank, _, said = _line(other, min(until, time.monotonic() + _PATIENCE)).partition(" ")
                if not 0 < int(rank) < world.size:
                    raise ValueError
            except (OSError, ValueError):  # somebody else who tries this port; a process would try again
                other.close()
                continue
            other.settimeout(max(until - time.monotonic(), 1e-3))
            heard[int(rank)], named[int(rank)] = other, said
        try:
            require_own_devices(named)
            answer = _GO
        except InputError as error:
            answer = str(error)
        for other in heard.values():
            other.sendall(f"{answer}\n".encode())
        for other in heard.values():  # who closes first holds the port for a while
            other.recv(1)
    if answer != _GO:
        raise InputError(answer)


def _line(other: socket.socket, until: float) -> str:
    """What the other one says until then, up to its first line break."""
    said = b""
    while not said.endswith(b"\n") and len(said) < _LONGEST:
        other.settimeout(max(until - time.monotonic(), 1e-3))
        more = other.recv(1)
        if not more:
            break
        said += more
    return said.decode(errors="replace").rstrip("\n")


def _report(world: World, port: int, until: float, device: str) -> None:
    """Any other process: says that it is there, as soon as somebody listens, and waits for the rest."""
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            with socket.create_connection((world.address, port), timeout=left) as first:
                first.sendall(f"{world.rank} {device}\n".encode())
                answer = _line(first, until)
            if answer == _GO:
                return
            if answer:
                raise InputError(answer)
            raise ConnectionResetError
        except (ConnectionRefusedError, ConnectionResetError):
            time.sleep(0.05)


def require_free(port: int) -> None:
    """Raises InputError where something else on this machine listens at that port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            said = f"MASTER_PORT: received {port}, which is in use ({error.strerror})"
            raise InputError(f"{said}; choose another, or end what listens there") from error


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.bind(("localhost", 0))
        port: int = tried.getsockname()[1]
        return port


def part_of(count: int, rank: int, size: int) -> slice:
    """The part of `count` things that falls to a process: consecutive, as even as can be, the first parts larger."""
    least, more = divmod(count, size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


def int_or_none(text: str | None) -> int | None:
    """The number that a text is, or None."""
    return int(text) if text is not None and re.fullmatch(r"\d+", text) else None


def _number(environment: Mapping[str, str], name: str) -> int:
    found = int_or_none(environment[name])
    if found is None or found > _MOST:
        raise InputError(f"{name}: received {shown(environment[name])}, expected a number from 0 to {_MOST}")
    return found
