"""The sections `parallel`, `distributed` and `precision`: where a run is computed, by how many processes, in what."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gru_jax.config.sections.base import Count, Section, broken_rule

Dtype = Literal["float32", "bfloat16"]


class ParallelConfig(Section):
    """`single` device; `data`: the batch split over a mesh under jit; `pmap`: split with jax.pmap.

    `time`: the time axis of every sequence split over the devices, under jit. `parts` of them share a sequence, and
    the batch is split over what is left: 8 devices with `parts: 4` are a mesh of 2 x 4.

    `devices`: how many to use; null is all there are. `parts`: null is all of those. `accumulate`: into how many parts
    the batch of a step is cut, whose gradients are computed one after another and added up; it costs time and saves
    memory.
    """

    strategy: Literal["single", "data", "pmap", "time"] = "single"
    devices: Count | None = None
    parts: Count | None = None
    accumulate: Count = 1


class DistributedConfig(Section):
    """Whether several processes, on one machine or many, make this run together.

    `off`: this process alone. `auto`: the processes that SLURM, a TPU pod, Kubernetes, MPI or `gru-jax launch` has
    started, as jax.distributed finds them. `manual`: those of which `coordinator` (`host:port` of process 0),
    `processes` and `process_id` are told here.
    """

    mode: Literal["off", "auto", "manual"] = "off"
    coordinator: str | None = None
    processes: Count | None = None
    process_id: Annotated[int, Field(ge=0, lt=10**7)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "DistributedConfig":
        told = {"coordinator": self.coordinator, "processes": self.processes, "process_id": self.process_id}
        for key, value in told.items():
            if self.mode == "manual" and value is None:
                raise broken_rule(key, "mode 'manual' needs coordinator (host:port), processes and process_id")
            if self.mode != "manual" and value is not None:
                raise broken_rule(key, f"is for mode 'manual'; mode is {self.mode!r}")
        if self.mode == "manual":
            assert self.coordinator is not None and self.processes is not None and self.process_id is not None
            host, _, port = self.coordinator.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
                raise broken_rule("coordinator", f"expected host:port, got {self.coordinator!r}")
            if self.process_id >= self.processes:
                fact = f"the {self.processes} processes are 0 to {self.processes - 1}, got {self.process_id}"
                raise broken_rule("process_id", fact)
        return self


class PrecisionConfig(Section):
    """In what dtype `params` are held, and in which the network computes with them: `compute`.

    Losses, metrics and the optimizer's state are float32 in any case. Both count for the hash of a run.
    """

    params: Dtype = "float32"
    compute: Dtype = "float32"
