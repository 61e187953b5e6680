"""From a study file to papermill. In: a study and its results. Out: what is missing, made by executed notebooks."""
