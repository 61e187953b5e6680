"""The tuned answer: the records of its stages come in; the next stage's study files, choices, the law and costs go out.

Read `choices` and `stages`, then `fitting`, `law` and `costs`, then `decisions`, `power` and `claims`.
"""
