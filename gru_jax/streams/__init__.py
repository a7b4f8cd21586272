"""A network one step a call, for data that arrive frame by frame.

`stream` is what users hold, `arguments` what they give it. `network` takes a layer apart. `machine_code` runs its step
as a function that was compiled for this processor, `compiled` by XLA where there is none, and `c_files` writes that
function for programs in C.
"""
