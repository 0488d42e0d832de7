"""The cut in the form that a GPU runs well: no look at a value on the host, no loop over tokens, rows or pairs.

What is computed is what the rest of this folder's parent computes, one file per step, which stays the reference.
Lengths are known to the host, so a whole prefill can be queued, or captured in a CUDA graph, without a pause.
"""
