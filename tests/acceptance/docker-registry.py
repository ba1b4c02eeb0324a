"""The Docker registry as Debian has it."""

from registry import flow

flow("docker-registry", "acceptance-registry")
