"""Triton's kernels for a stack on a GPU. In: rows and weights of all members. Out: rows, loss, gradients, a step."""
