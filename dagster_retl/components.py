"""What `dg` finds here: the components of this package, and nothing that takes long to import."""

from dagster_retl.orchestration.components import ReverseEtlComponent, ReverseEtlSyncComponent

__all__ = ["ReverseEtlComponent", "ReverseEtlSyncComponent"]
