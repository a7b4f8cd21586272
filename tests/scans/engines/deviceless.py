"""Compiles training steps for a GPU or a TPU on a machine that has none; run as a command by test_compiles.py.

    python deviceless.py cuda|tpu NAME ...

JAX's plugin for the device has to be installed, `pip install 'jax[cuda13]'` or `'jax[tpu]'`: XLA, Triton and Mosaic
then compile to machine code, and only running it is left out.
"""

import functools
import os
import sys

# Read when JAX is first used.
os.environ.update(CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1")

import jax
import jax.numpy as jnp
from jax.experimental import topologies

import gru_jax as gj

# What XLA has to know of an H200 in its place.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } runtime_version { major: 13 }
device_description_str: "NVIDIA H200"
"""

PROGRAMS = {
    "gru": (gj.GRU(100), gj.Sequential(kernel="pallas"), (50, 4, 10), "float32"),
    "wide gru": (gj.GRU(768), gj.Sequential(kernel="pallas"), (64, 16, 64), "bfloat16"),
    "heads": (gj.GRU(64, heads=4, reset="before"), gj.Sequential(kernel="pallas"), (50, 4, 10), "float32"),
    "diagonal": (gj.GRU(256, heads=256), gj.Sequential(kernel="pallas"), (50, 4, 10), "bfloat16"),
    "minGRU": (gj.MinGRU(100), gj.Associative(kernel="pallas"), (1000, 4, 10), "float32"),
    "long minGRU": (gj.MinGRU(64), gj.Associative(kernel="pallas"), (100_000, 1, 10), "bfloat16"),
    "Newton": (gj.GRU(64), gj.Newton(jacobian="diagonal", kernel="pallas"), (200, 4, 10), "float32"),
}


def training_step(name):
    """A value with its gradients, and the shapes of their arguments."""
    cell, method, (T, B, I), dtype = PROGRAMS[name]
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), I, jnp.dtype(dtype)))
    x = jax.ShapeDtypeStruct((B, T, I), jnp.dtype(dtype))
    lengths = jax.ShapeDtypeStruct((B,), jnp.int32)

    def loss(params, x, lengths):
        y, h = gj.scan(cell, params, x, lengths=lengths, method=method)
        return (y.astype(jnp.float32) ** 2).sum() + h.astype(jnp.float32).sum()

    return jax.value_and_grad(loss, (0, 1)), (params, x, lengths)


def split_over(mesh, name):
    """The same, the batch split over a mesh by `jax.shard_map`."""
    step, shapes = training_step(name)
    P = jax.sharding.PartitionSpec

    def of_all(*given):
        value, (d_params, d_x) = step(*given)
        return jax.lax.psum(value, "all"), d_params, d_x

    specs = {"in_specs": (P(), P("all"), P("all")), "out_specs": (P(), P(), P("all"))}
    return jax.shard_map(of_all, mesh=mesh, **specs), shapes


def main() -> None:
    platform, *names = sys.argv[1:]
    if platform == "cuda":
        devices = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1").devices
    else:
        devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    # The kernels are those of the backend that JAX would use with the device.
    jax.default_backend = lambda: {"cuda": "gpu"}.get(platform, platform)
    for name in names:
        split = name.startswith("split ")
        mesh = jax.sharding.Mesh(devices if split else devices[:1], ("all",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        function, shapes = split_over(mesh, name.removeprefix("split ")) if split else training_step(name)
        place = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
        placed = [jax.tree.map(lambda a, place=place: place(a.shape, a.dtype), each) for each in shapes]
        text = jax.jit(function).trace(*placed).lower(lowering_platforms=(platform,)).compile().as_text()
        called = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}[platform]
        print(f"{name}: {text.count(called)} kernels", flush=True)


if __name__ == "__main__":
    main()
