"""The newest Docker registry."""

from registry import NEWEST, flow

flow(str(NEWEST), "acceptance-registry-3")
