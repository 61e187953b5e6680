"""Many members at once. In: tasks, the courses of their hyper-parameters and an execution path. Out: their logs."""
