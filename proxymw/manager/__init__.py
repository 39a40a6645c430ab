"""The balancer manager: one screen, one API and one set of numbers for any number of pools."""

from proxymw.manager.app import BalancerManagerApp

__all__ = ["BalancerManagerApp"]
