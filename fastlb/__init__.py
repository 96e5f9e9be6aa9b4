"""fastlb: a reverse proxy and load balancer whose first duty is session persistence."""

__all__ = ["__version__"]

__version__ = "0.1.0"
