"""Triton's kernels for a stack on a GPU. In: rows and weights of all members. Out: rows, and every gradient."""
