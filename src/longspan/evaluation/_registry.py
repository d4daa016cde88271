"""What `inspect eval longspan/...` finds: the entry point of inspect_ai."""

from longspan.evaluation import agent, provider, tasks  # noqa: F401
