"""One step of a whole network as one function of machine code, for streams.

`net` is what is known of a network before code is written, `cells` which cells there are steps of, `minimal` two of
them. Each part has its `writer`: `gated` those of cells, `between` of norms and sums, `dense` of output layers; what a
`matrix` is they share. `program` puts them one behind the other, and `object_file` makes of it what a linker takes.
"""
