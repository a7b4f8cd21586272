"""One step of a whole network as one function of machine code, for streams.

`net` is what is known of a network before code is written, `cells` which cells there are steps of. `gated` writes such
a step and `between` what stands between two, `program` puts them one behind the other, and `object_file` makes of it
what a linker takes.
"""
