"""A training daemon that makes mixed precision a live, observable, reversible setting of a running job."""

__version__ = "0.1.0"
