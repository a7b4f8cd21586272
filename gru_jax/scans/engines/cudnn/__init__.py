"""cuDNN's GRU: `Sequential(kernel="cudnn")`.

`host.cc` calls cuDNN, `build` compiles it where it is first used (or `gru-jax build-kernels` before that), `library`
loads it, `packing` lays parameters out as cuDNN has them, `call` are its three operations in JAX, and
`gru` runs a cell by them. Nothing of CUDA and no compiler is looked for before there is a GPU.
"""

