"""The cut in the form that a GPU runs well: no loop over tokens, rows or pairs, and one look at a value on the
host, whether merging has settled, which a caller that gives a number of rounds takes upon itself.

What is computed is what the rest of this folder's parent computes, one file per step, which stays the reference.
Lengths are known to the host, so with that number a whole prefill can be queued, or captured in a CUDA graph.
"""
