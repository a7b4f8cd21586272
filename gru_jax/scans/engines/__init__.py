"""Engines: what finds the states of a scan, each beside nothing but the plain form that it must equal.

An engine is one object of `registry`, asked for by the option `kernel` of a method: "scan" and "chunked" are loops that
XLA compiles (`xla`), "llvm" is machine code for a CPU, "cudnn" cuDNN's GRU, "pallas" the kernel for the GPU or TPU that
JAX uses; "interpret-gpu" and "interpret-tpu" run the GPU's and the TPU's kernel in Pallas's interpreter on any backend,
slowly: for tests, and for looking at what a kernel does without its device.
"""
